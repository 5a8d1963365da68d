-- Stores messages for every group. ARGV: for each message its id, key, headers, body and delay in
-- milliseconds. Gives the number of groups.

local groups = redis.call('SMEMBERS', KEYS[1] .. ':groups')
local now = now_ms()
for _, group in ipairs(groups) do
    local p = places(group)
    for i = 1, #ARGV, 5 do
        local entry = {
            'tries', 0, 'handed', 0, 'id', ARGV[i], 'at', now,
            'key', ARGV[i + 1], 'head', ARGV[i + 2], 'body', ARGV[i + 3],
        }
        hand_in(p, entry, now + tonumber(ARGV[i + 4]), now)
    end
end
return #groups
