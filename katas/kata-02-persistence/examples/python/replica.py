"""Reading from the replica, and saying how far behind it may be."""

import os

import psycopg

import database

# Any time that is too long is right, any that is too short is wrong: a replica that has replayed no
# commit yet may lack anything.
LOOK = """
select pg_last_wal_replay_lsn()::text,
       floor(extract(epoch from clock_timestamp()
             - coalesce(pg_last_xact_replay_timestamp(), to_timestamp(0))) * 1000)::bigint
"""

_url = os.environ.get("REPLICA_URL", "")


def is_there() -> bool:
    return bool(_url)


def look(account_id: str) -> tuple[int | None, int | None]:
    """The balance, and how many milliseconds it may be behind; `None` if nobody can tell."""
    try:
        # A connection for each read: one that was cut is nobody's concern then.
        with psycopg.connect(_url, autocommit=True, connect_timeout=4) as db:
            # Asked before the row is read. What is replayed in between makes the balance newer than
            # we say, never older.
            position, behind_ms = db.execute(LOOK).fetchone()
            row = db.execute(
                "select balance_cents from accounts where account_id = %s", (account_id,)
            ).fetchone()
    except psycopg.Error as error:
        raise database.Unavailable(str(error)) from error
    return (row[0] if row else None), _staleness_ms(position, behind_ms)


def _staleness_ms(position: str, behind_ms: int) -> int | None:
    try:
        with database.connection() as db:
            sql = "select pg_current_wal_flush_lsn() <= %s::pg_lsn"
            has_all = db.execute(sql, (position,)).fetchone()[0]
    except database.Unavailable:
        return None
    return 0 if has_all else max(behind_ms, 1)
