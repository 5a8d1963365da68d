-- Publishes dead letters again. ARGV: group, then their ids. Gives how many there were.

local p = places(ARGV[1])
local now = now_ms()
local redriven = 0
for i = 2, #ARGV do
    local found = redis.call('XRANGE', p.dead, ARGV[i], ARGV[i])[1]
    if found then
        local entry = { unpack(found[2], 1, 14) }
        entry[TRIES], entry[HANDED] = 0, 1
        redis.call('XDEL', p.dead, ARGV[i])
        hand_in(p, entry, now, now)
        redriven = redriven + 1
    end
end
return redriven
