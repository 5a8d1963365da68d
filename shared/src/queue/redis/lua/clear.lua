-- Deletes what is in the queue, and with ARGV[1] = '1' the queue and its groups as well.

for _, group in ipairs(redis.call('SMEMBERS', KEYS[1] .. ':groups')) do
    local p = places(group)
    for _, name in pairs(p) do
        redis.call('UNLINK', name)
    end
    if ARGV[1] ~= '1' then
        for _, stream in ipairs({ p.again, p.ready, p.tick }) do
            redis.call('XGROUP', 'CREATE', stream, MEMBERS, '0', 'MKSTREAM')
        end
    end
end
if ARGV[1] == '1' then
    redis.call('UNLINK', KEYS[1] .. ':groups')
end
