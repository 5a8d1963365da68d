-- Declares groups. ARGV: their names.

for _, group in ipairs(ARGV) do
    redis.call('SADD', KEYS[1] .. ':groups', group)
    local p = places(group)
    for _, stream in ipairs({ p.again, p.ready, p.tick }) do
        -- It may be there already, which is the only error that this can give.
        redis.pcall('XGROUP', 'CREATE', stream, MEMBERS, '0', 'MKSTREAM')
    end
end
