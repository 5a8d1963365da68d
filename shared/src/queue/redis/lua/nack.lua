-- Puts failed deliveries back. ARGV: group, then for each its stream, id, delay in milliseconds and
-- error. Their keys stay busy. Gives the numbers, from 1, of those that were lost.

local p = places(ARGV[1])
local now = now_ms()
local lost = {}
for i = 2, #ARGV, 4 do
    local entry = take(stream_of(p, ARGV[i]), ARGV[i + 1])
    if entry then
        count(entry)
        entry[LAST_ERROR - 1], entry[LAST_ERROR] = 'error', ARGV[i + 3]
        deliver(p, p.again, entry, now + tonumber(ARGV[i + 2]), now)
    else
        lost[#lost + 1] = (i + 2) / 4
    end
end
return lost
