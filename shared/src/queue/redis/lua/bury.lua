-- Gives deliveries up. ARGV: group, then for each its stream, id, key and reason. Gives the numbers,
-- from 1, of those that were lost.

local p = places(ARGV[1])
local now = now_ms()
local lost = {}
for i = 2, #ARGV, 4 do
    local entry = take(stream_of(p, ARGV[i]), ARGV[i + 1])
    if entry then
        count(entry)
        entry[#entry + 1] = 'reason'
        entry[#entry + 1] = ARGV[i + 3]
        add(p.dead, entry)
        if ARGV[i + 2] ~= '' then
            hand_on(p, ARGV[i + 2], now)
        end
    else
        lost[#lost + 1] = (i + 2) / 4
    end
end
return lost
