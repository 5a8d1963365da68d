-- Ends deliveries. ARGV: group, how many are from `again`, how many from `ready`, their ids, their
-- keys. Gives the numbers, from 1, of those that were lost.

local p = places(ARGV[1])
local from_again, from_ready = tonumber(ARGV[2]), tonumber(ARGV[3])
local total = from_again + from_ready
local now = now_ms()
local lost = {}

local function done(number)
    local key = ARGV[3 + total + number]
    if key ~= '' then
        hand_on(p, key, now)
    end
end

local function settle(stream, first, last)
    if first > last then
        return
    end
    local ids = { unpack(ARGV, 3 + first, 3 + last) }
    if redis.call('XACK', stream, MEMBERS, unpack(ids)) == #ids then
        redis.call('XDEL', stream, unpack(ids))
        for number = first, last do
            done(number)
        end
        return
    end
    -- Some are lost: those that are not in the stream any more.
    for number = first, last do
        if redis.call('XDEL', stream, ARGV[3 + number]) == 1 then
            done(number)
        else
            lost[#lost + 1] = number
        end
    end
end

settle(p.again, 1, from_again)
settle(p.ready, from_again + 1, total)
return lost
