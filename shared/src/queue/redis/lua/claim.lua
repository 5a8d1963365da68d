-- Hands out what is there. ARGV: group, member, how many, and '1' if expired leases are to be looked
-- for. Gives the entries of either stream, and in how many milliseconds the next delayed one is due
-- (-1 if there is none).

local p = places(ARGV[1])
local member, max = ARGV[2], tonumber(ARGV[3])
local now = now_ms()

-- Nobody has heard of a member without deliveries for so long: it is forgotten.
local FORGOTTEN_MS = 60 * 60 * 1000
-- A script holds up the whole server, so each does a bounded piece of work, and the next goes on.
local PIECE, PIECE_BYTES = 512, 4 * 1024 * 1024

local function move_due()
    local moved, bytes = 0, 0
    while moved < PIECE and bytes < PIECE_BYTES do
        local due = redis.call('ZRANGEBYSCORE', p.delayed, '-inf', now, 'LIMIT', 0, 16)
        for _, found in ipairs(due) do
            redis.call('ZREM', p.delayed, found)
            add(p.again, cmsgpack.unpack(string.sub(found, 17)))
            bytes = bytes + #found
        end
        moved = moved + #due
        if #due < 16 then
            return
        end
    end
end

-- The lease is part of the member's name, since Redis knows only for how long an entry was idle.
local function take_expired(stream)
    for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', stream, MEMBERS)) do
        local info = {}
        for i = 1, #flat, 2 do
            info[flat[i]] = flat[i + 1]
        end
        if info.pending > 0 then
            local lease = string.match(info.name, '/(%d+)$') or '60000'
            local expired = redis.call(
                'XPENDING', stream, MEMBERS, 'IDLE', lease, '-', '+', PIECE, info.name)
            local bytes = 0
            for _, pending in ipairs(expired) do
                local entry = take(stream, pending[1])
                if entry then
                    count(entry)
                    add(p.again, entry)
                    bytes = bytes + #entry[14]
                end
                if bytes > PIECE_BYTES then
                    break
                end
            end
        elseif info.idle > FORGOTTEN_MS then
            redis.call('XGROUP', 'DELCONSUMER', stream, MEMBERS, info.name)
        end
    end
end

local function read(stream, most)
    if most <= 0 then
        return {}
    end
    local found = redis.call(
        'XREADGROUP', 'GROUP', MEMBERS, member, 'COUNT', most, 'STREAMS', stream, '>')
    return found and found[1][2] or {}
end

move_due()
if ARGV[4] == '1' then
    take_expired(p.again)
    take_expired(p.ready)
end
local again = read(p.again, max)
local ready = read(p.ready, max - #again)
local first = redis.call('ZRANGE', p.delayed, 0, 0, 'WITHSCORES')[2]
return { again, ready, first and math.max(0, tonumber(first) - now) or -1 }
