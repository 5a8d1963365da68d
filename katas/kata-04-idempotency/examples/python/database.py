"""Connections to PostgreSQL: a small pool that never hands out a broken one.

Every statement of this program is a transaction of its own (autocommit) and one round trip. So a
connection never waits, with locks held, for our next word: a process that dies or falls silent
blocks nobody.
"""

import os
import queue
import select
import threading

import psycopg

# The contract allows 64 for all instances together. No connection is held while the provider is
# called, so a few are enough for many requests.
SIZE = 16
WAIT_SECONDS = 10

# Empty means: look at PGHOST, PGUSER and the rest.
_url = os.environ.get("DATABASE_URL", "")
_idle: queue.LifoQueue[psycopg.Connection] = queue.LifoQueue()
_permits = threading.BoundedSemaphore(SIZE)


class Unavailable(Exception):
    """The statement has perhaps not run, or has run and the answer was lost: nobody knows."""


def run(statement: str, **values: object) -> list[tuple]:
    """Runs one statement and gives its rows."""
    if not _permits.acquire(timeout=WAIT_SECONDS):
        raise Unavailable("no free connection")
    try:
        connection = _take()
        try:
            cursor = connection.execute(statement, values or None)
            rows = cursor.fetchall() if cursor.description else []
        except BaseException:
            # Whatever went wrong, this connection may be dead or half way through something.
            # A new one costs milliseconds; a poisoned one costs every request that gets it.
            connection.close()
            raise
        _idle.put(connection)
        return rows
    except psycopg.Error as error:
        raise Unavailable(str(error)) from error
    finally:
        _permits.release()


def _take() -> psycopg.Connection:
    while True:
        try:
            connection = _idle.get_nowait()
        except queue.Empty:
            return psycopg.connect(
                _url,
                autocommit=True,
                prepare_threshold=None,  # preparing costs a round trip and saves little here
                connect_timeout=5,
                # A server that vanished without a word is noticed in seconds, not in hours.
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
                tcp_user_timeout=10_000,
            )
        # The server says nothing unless asked. If there is something to read on an idle
        # connection, it is the end of it: found without a round trip, and without sacrificing
        # one request for each connection that was cut.
        if not select.select([connection.fileno()], [], [], 0)[0]:
            return connection
        connection.close()
