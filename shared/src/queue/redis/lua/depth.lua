-- How much there is. ARGV: group. Gives ready, delayed, leased, dead, and for how many milliseconds
-- the oldest has been ready (-1 if nothing is).

local p = places(ARGV[1])
local ready, leased, oldest = redis.call('ZCARD', p.parked), 0, nil
for _, stream in ipairs({ p.again, p.ready }) do
    local pending = redis.call('XPENDING', stream, MEMBERS)[1]
    leased = leased + pending
    ready = ready + redis.call('XLEN', stream) - pending
    for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
        for i = 1, #flat, 2 do
            if flat[i] == 'last-delivered-id' then
                local next = redis.call('XRANGE', stream, '(' .. flat[i + 1], '+', 'COUNT', 1)[1]
                local at = next and tonumber(next[2][8])
                if at and (not oldest or at < oldest) then
                    oldest = at
                end
            end
        end
    end
end
return {
    ready,
    redis.call('ZCARD', p.delayed),
    leased,
    redis.call('XLEN', p.dead),
    oldest and math.max(0, now_ms() - oldest) or -1,
}
