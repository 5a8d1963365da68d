-- A member leaves. ARGV: group, then its names, one for each lease that it took. What it holds goes
-- out again, with the attempt counted. Gives how many are left for the next call.

local p = places(ARGV[1])
local left = 0
for i = 2, #ARGV do
    for _, stream in ipairs({ p.again, p.ready, p.tick }) do
        local held = redis.call('XPENDING', stream, MEMBERS, '-', '+', 128, ARGV[i])
        for _, pending in ipairs(held) do
            local entry = take(stream, pending[1])
            if entry and stream ~= p.tick then
                count(entry)
                add(p.again, entry)
            end
        end
        if #held < 128 then
            redis.call('XGROUP', 'DELCONSUMER', stream, MEMBERS, ARGV[i])
        else
            left = left + 1
        end
    end
end
return left
