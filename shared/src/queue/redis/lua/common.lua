-- What the scripts below share. Put in front of each of them.
--
-- KEYS[1] is "{<queue>}", in braces so that all keys of a queue are on one node of a cluster; the
-- others are made from it.

local MEMBERS = 'members'

-- The keys of one group.
local function places(group)
    local p = KEYS[1] .. ':' .. group .. ':'
    return {
        again = p .. 'again',
        ready = p .. 'ready',
        tick = p .. 'tick',
        delayed = p .. 'delayed',
        busy = p .. 'busy',
        parked = p .. 'parked',
        dead = p .. 'dead',
        sequence = p .. 'sequence',
    }
end

-- Milliseconds since 1970, by the server's clock: the clients' need not agree.
local function now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Sorts as text in the order of arrival, and makes equal members of a set different.
local function sequence(p)
    return string.format('%016x', redis.call('INCR', p.sequence))
end

-- An entry is a list of names and values that begins with
-- tries, <number>, handed, <0 or 1>, id, <uuid>, at, <ms>, key, <key or ''>, head, <json>, body, <bytes>.
local TRIES, HANDED, KEY, LAST_ERROR = 2, 4, 10, 16

local function add(stream, entry)
    redis.call('XADD', stream, '*', unpack(entry))
end

-- Into the stream, or among the delayed if it is not due. The tick wakes one of those who wait for
-- longer than until then.
local function deliver(p, stream, entry, due, now)
    if due <= now then
        return add(stream, entry)
    end
    local first = redis.call('ZRANGE', p.delayed, 0, 0, 'WITHSCORES')[2]
    redis.call('ZADD', p.delayed, due, sequence(p) .. cmsgpack.pack(entry))
    if not first or due < tonumber(first) then
        redis.call('XADD', p.tick, 'MAXLEN', 1, '*', 'due', due)
    end
end

-- A new message. Of each key only the first is in the streams or among the delayed; the others are
-- parked until it is done, so that nobody can take them too early.
local function hand_in(p, entry, due, now)
    local key = entry[KEY]
    if key == '' or redis.call('SADD', p.busy, key) == 1 then
        return deliver(p, p.ready, entry, due, now)
    end
    local member = key .. '\0' .. sequence(p) .. cmsgpack.pack({ due, entry })
    -- Equal scores, so that members are sorted as bytes: by key, then by arrival. No key holds NUL.
    redis.call('ZADD', p.parked, 0, member)
end

-- The key's first message is done: the next one's turn.
local function hand_on(p, key, now)
    local low, high = '[' .. key .. '\0', '(' .. key .. '\1'
    local member = redis.call('ZRANGEBYLEX', p.parked, low, high, 'LIMIT', 0, 1)[1]
    if not member then
        return redis.call('SREM', p.busy, key)
    end
    redis.call('ZREM', p.parked, member)
    local due, entry = unpack(cmsgpack.unpack(string.sub(member, #key + 18)))
    -- Before those that came later: it has waited.
    deliver(p, p.again, entry, due, now)
end

-- Takes a delivery out of its stream. Nothing if it is not out any more, which is how a late
-- settlement is fenced: whoever hands a message out again makes a new entry, with a new id.
local function take(stream, id)
    if redis.call('XACK', stream, MEMBERS, id) == 0 then
        return nil
    end
    local found = redis.call('XRANGE', stream, id, id)[1]
    redis.call('XDEL', stream, id)
    return found and found[2]
end

-- Back into the queue, with the attempt counted.
local function count(entry)
    entry[TRIES] = entry[TRIES] + 1
    entry[HANDED] = 1
end

local function stream_of(p, flag)
    if flag == '1' then
        return p.again
    end
    return p.ready
end
