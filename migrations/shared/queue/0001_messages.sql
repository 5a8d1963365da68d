-- The queue in PostgreSQL. `shared::queue::postgres` is the only one that reads or writes here.
--
-- A message is one row for each group, deleted when it is done. What a claim may take has a
-- `position`; all else has none and is in no index that a claim looks at:
--
--   ready     position, lease = 0
--   leased    position, lease = the claim's token, until = when the lease ends
--   delayed   no position, not blocked, due = when it becomes ready
--   blocked   no position, blocked: an earlier message of its key is not done
--
-- Everything is "if not exists", since the program may make what is missing when it connects.

create sequence if not exists queue_positions;

create table if not exists queue_groups (
    id integer generated always as identity primary key,
    queue text not null,
    name text not null,
    unique (queue, name)
);

-- The columns that a claim changes come first and are never null, so that the old and the new row
-- differ in a few bytes only, which is all that PostgreSQL writes to its log.
-- No foreign key to the group: each message that is inserted would lock the group's row.
-- fillfactor: the version that a claim makes finds room beside the old one, and so touches no index
-- ("heap only tuple"). For that none of the columns that it changes may be in any index, a partial
-- one that does not hold the row included: this is why `until` is not `due`.
-- autovacuum: by number and not by share, since the table is empty when all is well; and without
-- pauses, since what it leaves behind is what claims stumble over.
create table if not exists queue_messages (
    group_id integer not null,
    attempt integer not null default 0,
    lease bigint not null default 0,
    until timestamptz not null default '-infinity',
    enqueued_at timestamptz not null,
    position bigint,
    rank bigint,
    id uuid not null,
    blocked boolean not null default false,
    due timestamptz,
    key text,
    headers text,
    error text,
    payload bytea not null,
    -- A message with a key has a rank among those of its key, and one without has none.
    check ((key is null) = (rank is null)),
    check (not blocked or (key is not null and position is null))
) with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0
);

-- The way of a claim, and the way back for what settles. The only index on the way of a message
-- without a key.
create unique index if not exists queue_messages_position
    on queue_messages (group_id, position) where position is not null;

-- Who is due next.
create index if not exists queue_messages_delayed
    on queue_messages (group_id, due) where position is null and not blocked;

-- Who is the first of a key.
create unique index if not exists queue_messages_key
    on queue_messages (group_id, key, rank) where key is not null;

create table if not exists queue_dead_letters (
    number bigint generated always as identity primary key,
    group_id integer not null,
    id uuid not null,
    attempt integer not null,
    enqueued_at timestamptz not null,
    died_at timestamptz not null default clock_timestamp(),
    reason text not null,
    key text,
    headers text,
    payload bytea not null
);

-- Dead letters are listed by group, oldest first.
create index if not exists queue_dead_letters_group on queue_dead_letters (group_id, number);

-- Makes those who change what a key has (publish, settle) go one after the other, until they have
-- committed: so ranks are given in the order of commits, and nobody unblocks a message that
-- another is just about to block. Claims take none of these locks.
--
-- 128 locks for all keys of a group and not one for each key: a batch of ten thousand keys would
-- fill the server's lock table. Sorted, so that two batches never wait for each other.
create or replace function queue_lock_keys(groups integer[], keys text[]) returns void
language plpgsql as $$
declare
    class integer := ('queue_messages'::regclass::oid::bigint % 2147483647)::integer;
    stripe integer;
begin
    for stripe in
        select distinct g * 128 + (hashtext(k) & 127)
        from unnest(groups) g, unnest(keys) k
        where k is not null
        order by 1
    loop
        perform pg_advisory_xact_lock(class, stripe);
    end loop;
end
$$;

-- Publishes messages of which some have keys. Each statement sees what was committed before it
-- began, and so what was committed before the locks were had.
create or replace function queue_publish_keyed(
    groups integer[], ids uuid[], keys text[], headers text[], delays_s float8[], payloads bytea[]
) returns void
language plpgsql as $$
begin
    perform queue_lock_keys(groups, keys);
    insert into queue_messages
        (group_id, due, enqueued_at, position, rank, id, blocked, key, headers, payload)
    select
        n.g,
        case when n.delay_s > 0 then clock_timestamp() + make_interval(secs => n.delay_s) end,
        clock_timestamp(),
        case when not n.blocked and n.delay_s <= 0 then nextval('queue_positions') end,
        case when n.key is not null then nextval('queue_positions') end,
        n.id, n.blocked, n.key, n.headers, n.payload
    from (
        select
            g, m.id, m.key, m.headers, m.payload, m.delay_s, m.number,
            m.key is not null and (
                row_number() over (partition by g, m.key order by m.number) > 1
                or exists (select from queue_messages e where e.group_id = g and e.key = m.key)
            ) as blocked
        from unnest(groups) g,
            unnest(ids, keys, headers, delays_s, payloads)
                with ordinality m(id, key, headers, delay_s, payload, number)
        -- Ranks and positions are drawn after the sort, so they follow the caller's order.
        order by g, m.number
    ) n;
end
$$;

-- Lets the first message of each key go, if it was held back. Only under the keys' locks.
create or replace function queue_unblock(g integer, keys text[]) returns void
language sql as $$
    update queue_messages m
    set blocked = false,
        position = case
            when m.due is null or m.due <= clock_timestamp() then nextval('queue_positions')
        end
    from (select distinct k from unnest(keys) k where k is not null) d,
        lateral (
            select f.rank from queue_messages f
            where f.group_id = g and f.key = d.k
            order by f.rank limit 1
        ) first
    where m.group_id = g and m.key = d.k and m.rank = first.rank and m.blocked
$$;

-- Deletes what is done, of which some have keys. Positions of those that were.
create or replace function queue_ack_keyed(
    g integer, positions bigint[], leases bigint[], keys text[]
) returns setof bigint
language plpgsql as $$
begin
    perform queue_lock_keys(array[g], keys);
    return query
        delete from queue_messages m using unnest(positions, leases) r(position, lease)
        where m.group_id = g and m.position = r.position and m.lease = r.lease
        returning m.position;
    perform queue_unblock(g, keys);
end
$$;

-- Moves what is given up to the dead letters. Positions of those that were.
create or replace function queue_bury(
    g integer, positions bigint[], leases bigint[], reasons text[], keys text[]
) returns setof bigint
language plpgsql as $$
begin
    perform queue_lock_keys(array[g], keys);
    return query
        with gone as (
            delete from queue_messages m
            using unnest(positions, leases, reasons) r(position, lease, reason)
            where m.group_id = g and m.position = r.position and m.lease = r.lease
            returning m.*, r.reason
        ), kept as (
            insert into queue_dead_letters
                (group_id, id, attempt, enqueued_at, reason, key, headers, payload)
            select group_id, id, attempt, enqueued_at, reason, key, headers, payload from gone
        )
        select gone.position from gone;
    perform queue_unblock(g, keys);
end
$$;
