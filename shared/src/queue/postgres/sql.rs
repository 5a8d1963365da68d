//! Every statement, with its reasons.
//!
//! All positions and leases travel in arrays, so that a batch is one statement and one round trip,
//! prepared once for each connection.

use crate::db::{Migration, Migrations};

/// What the queue needs in the database, for programs that migrate by `db::migrate`: put it into
/// your list.
pub const MIGRATIONS: Migrations<'static> = Migrations {
    owner: "shared/queue",
    steps: &[Migration {
        version: 1,
        name: "messages",
        sql: include_str!("../../../../migrations/shared/queue/0001_messages.sql"),
    }],
};

/// One lock, so that two programs that start at once do not both make the tables, which "if not
/// exists" does not prevent.
pub(super) const CREATION_LOCK: &str =
    "select pg_advisory_xact_lock(hashtextextended(current_schema() || '.queue', 0))";

/// The table's number, which also names the channel, since channels belong to the whole database;
/// null if it is missing.
pub(super) const TABLE: &str = "select to_regclass('queue_messages')::oid::int8";

/// A group is found far more often than made: an upsert would use up a number and write each time.
pub(super) const FIND_GROUPS: &str = "select id, name from queue_groups where queue = $1";

pub(super) const DECLARE_GROUPS: &str = "\
    insert into queue_groups (queue, name) select $1, n from unnest($2::text[]) n \
    on conflict do nothing";

pub(super) const PUBLISH: &str = "\
    insert into queue_messages (group_id, due, enqueued_at, position, id, headers, payload) \
    select g, case when m.delay_s > 0 then now() + make_interval(secs => m.delay_s) end, now(), \
        case when m.delay_s <= 0 then nextval('queue_positions') end, m.id, m.headers, m.payload \
    from unnest($1::int4[]) g, \
        unnest($2::uuid[], $3::text[], $4::float8[], $5::bytea[]) m(id, headers, delay_s, payload)";

pub(super) const PUBLISH_KEYED: &str = "select queue_publish_keyed($1, $2, $3, $4, $5, $6)";

/// `skip locked`: whoever claims at the same time takes the next ones instead of waiting.
///
/// By `ctid`: the rows were just found and are locked by us, so that they cannot have moved, and
/// need not be found a second time.
pub(super) const CLAIM: &str = "\
    update queue_messages \
    set lease = $4, until = now() + make_interval(secs => $5), attempt = attempt + 1 \
    where ctid = any (array( \
        select ctid from queue_messages \
        where group_id = $1 and position > $2 and until <= now() \
        order by position limit $3 for update skip locked)) \
    returning position, attempt, id, enqueued_at, key, headers, payload";

/// Gives those whose time has come a place at the end of the queue. How long until the next is due,
/// in seconds.
pub(super) const WAKE_DELAYED: &str = "\
    with woken as ( \
        update queue_messages set position = nextval('queue_positions'), due = null \
        where ctid = any (array( \
            select ctid from queue_messages \
            where group_id = $1 and position is null and not blocked and due <= now() \
            order by due limit 1000 for update skip locked)) \
        returning 1) \
    select (select count(*) from woken), \
        (select extract(epoch from due - clock_timestamp())::float8 from queue_messages \
         where group_id = $1 and position is null and not blocked and due > now() \
         order by due limit 1)";

/// The lowest position that is there, and what tells when no lower one can come any more: see
/// `cursor`.
pub(super) const LOWEST: &str = "\
    select (select position from queue_messages where group_id = $1 and position > $2 \
            order by position limit 1), \
        pg_snapshot_xmin(pg_current_snapshot())::text::int8, \
        pg_snapshot_xmax(pg_current_snapshot())::text::int8";

pub(super) const ACK: &str = "\
    delete from queue_messages m using unnest($2::int8[], $3::int8[]) r(position, lease) \
    where m.group_id = $1 and m.position = r.position and m.lease = r.lease \
    returning m.position";

pub(super) const ACK_KEYED: &str = "select queue_ack_keyed($1, $2, $3, $4)";

pub(super) const BURY: &str = "select queue_bury($1, $2, $3, $4, $5)";

/// Without a delay it goes to the end of the queue, else out of the claims' way until it is due. A
/// message with a key stays the first of its key, so that nothing overtakes it.
pub(super) const NACK: &str = "\
    update queue_messages m \
    set lease = 0, until = '-infinity', error = r.error, \
        due = case when r.delay_s > 0 \
            then clock_timestamp() + make_interval(secs => r.delay_s) end, \
        position = case when r.delay_s <= 0 then nextval('queue_positions') end \
    from unnest($2::int8[], $3::int8[], $4::float8[], $5::text[]) r(position, lease, delay_s, error) \
    where m.group_id = $1 and m.position = r.position and m.lease = r.lease \
    returning r.position";

pub(super) const EXTEND: &str = "\
    update queue_messages m set until = now() + make_interval(secs => $4) \
    from unnest($2::int8[], $3::int8[]) r(position, lease) \
    where m.group_id = $1 and m.position = r.position and m.lease = r.lease \
    returning m.position";

/// It keeps its position: it was taken by mistake, and does not have to queue again.
pub(super) const RELEASE: &str = "\
    update queue_messages m set lease = 0, until = '-infinity', attempt = attempt - 1 \
    from unnest($2::int8[], $3::int8[]) r(position, lease) \
    where m.group_id = $1 and m.position = r.position and m.lease = r.lease \
    returning m.position";

pub(super) const DEPTH: &str = "\
    select count(*) filter (where not delayed and not leased), \
        count(*) filter (where delayed), \
        count(*) filter (where leased), \
        (select count(*) from queue_dead_letters where group_id = $1), \
        extract(epoch from now() - min(enqueued_at) \
            filter (where not delayed and not leased))::float8 \
    from (select enqueued_at, due > now() is true as delayed, until > now() as leased \
        from queue_messages where group_id = $1) m";

pub(super) const DEAD_LETTERS: &str = "\
    select number, id, attempt, enqueued_at, died_at, reason, key, headers, payload \
    from queue_dead_letters where group_id = $1 and number > $2 order by number limit $3";

/// Two that redrive the same letters at once must not both publish them.
pub(super) const TAKE_DEAD_LETTERS: &str = "\
    delete from queue_dead_letters where group_id = $1 and number = any ($2) \
    returning number, id, key, headers, payload";

pub(super) const DISCARD: &str =
    "delete from queue_dead_letters where group_id = $1 and number = any ($2)";

pub(super) const PURGE: &str = "delete from queue_messages where group_id = any ($1)";

pub(super) const PURGE_DEAD_LETTERS: &str =
    "delete from queue_dead_letters where group_id = any ($1)";

pub(super) const DELETE_GROUPS: &str = "delete from queue_groups where queue = $1";

pub(super) const NOTIFY: &str = "select pg_notify($1, $2)";
