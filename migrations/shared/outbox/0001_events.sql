-- The outbox: events that commit together with the change that they tell of, until a relay has
-- published them.
--
--   waiting → gone or published   a relay published it (published: if it is kept for a while)
--   waiting → parked              the publish failed and is tried again at retry_at
--   waiting → stuck               the publish failed for good; an operator decides
--   waiting → held                an earlier event of the same key is parked or stuck
--   parked  → waiting             retry_at has come
--   stuck   → waiting             retried by an operator
--   stuck   → gone                discarded by an operator
--   held    → waiting             the event that it waits behind has left parked or stuck
--
--   waiting    published_at is null and behind is null
--   parked     behind = id and retry_at is not null
--   stuck      behind = id and retry_at is null
--   held       behind <> id
--   published  published_at is not null

create table outbox_events (
    -- Drawn when an event is staged, and so a later one may commit first: it orders the events of
    -- one key, and is never a position from which somebody may read on.
    id bigint generated always as identity primary key,
    -- The message's id at the broker. The same at each repetition, so that a consumer can tell.
    message_id uuid not null,
    queue text not null,
    -- Events of one queue with the same key are published in the order of their ids.
    key text,
    -- Whoever has claimed a lane has all events of its keys, which is what keeps their order when
    -- there are several relays. Generated, so that nobody can put a key into two lanes. Should a new
    -- major version of PostgreSQL hash differently, let the outbox run empty before the upgrade.
    lane smallint not null generated always as (
        (hashtextextended(queue || '/' || coalesce(key, message_id::text), 0) & 63)::smallint
    ) stored,
    payload bytea not null,
    headers jsonb not null default '{}',
    priority smallint not null default 0,
    -- When a delayed message is due; the broker waits for it, not the relay.
    due_at timestamptz,
    staged_at timestamptz not null default clock_timestamp(),
    -- How often publishing this event failed while others of its queue went through.
    attempts integer not null default 0,
    last_error text,
    -- The id of the event that this one waits behind; its own if it is that event. No foreign key:
    -- it would lock the failed row at each publish, and whoever resolves one resolves all behind it.
    behind bigint,
    retry_at timestamptz,
    published_at timestamptz
) with (
    -- Rows come and go: at the default of a fifth of the table, an outbox that once was long is
    -- vacuumed far too seldom, and each look at the head of a lane steps over what is dead.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000
);

-- The head of a lane. The only index beside the primary key that staging an event pays for.
create index outbox_events_waiting on outbox_events (lane, id)
    where published_at is null and behind is null;

-- "Is an earlier event of this key parked or stuck?", asked for each event that is read, and the
-- operator's list. As long as few fail, it is all but empty.
create index outbox_events_failed on outbox_events (queue, key, id) where behind = id;

-- All that are to be set free when one event is resolved.
create index outbox_events_behind on outbox_events (behind) where behind is not null;

-- Parked events whose time has come.
create index outbox_events_retry on outbox_events (retry_at) where retry_at is not null;

-- What the clean-up removes, oldest first.
create index outbox_events_published on outbox_events (published_at)
    where published_at is not null;

-- Who works on which lane. A lease and not a row lock, since a lock would take a transaction that
-- stays open while a broker is talked to, and nothing in the database could be vacuumed meanwhile.
create table outbox_lanes (
    lane smallint primary key,
    -- Another one at each claim. Whoever finds a foreign one here has lost the lane, and must not
    -- write what it believes to know about the lane's events.
    claim uuid,
    claimed_until timestamptz
) with (
    -- Room for new versions on the same page: no index entry is written and no vacuum is needed.
    fillfactor = 20
);

insert into outbox_lanes (lane) select generate_series(0, 63);

-- Relays that have nothing to do and want to be told. Staging notifies only if there is one: every
-- NOTIFY takes a lock on the whole database at commit, and under load nobody sleeps.
-- Unlogged: after a crash of the server the relays look by themselves.
create unlogged table outbox_sleepers (
    relay uuid primary key,
    -- Not for ever: a relay that was killed in its sleep would cost everybody that lock.
    until timestamptz not null
);
