-- Puts back what was not begun. ARGV: group, then for each its stream and id. Gives the numbers, from
-- 1, of those that were lost.

local p = places(ARGV[1])
local lost = {}
for i = 2, #ARGV, 2 do
    local entry = take(stream_of(p, ARGV[i]), ARGV[i + 1])
    if entry then
        entry[HANDED] = 1
        add(p.again, entry)
    else
        lost[#lost + 1] = i / 2
    end
end
return lost
