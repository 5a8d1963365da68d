"""Connections and transactions. A broken connection is never handed out twice."""

import os
import queue
import random
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from psycopg import errors

# The contract allows 64 for all instances together. One request needs one, from its beginning to
# its end, so those that wait for one hold nothing.
SIZE = 12
WAIT_SECONDS = 30
# Serialization failure and deadlock: nothing of it happened, and it may go well next time.
LOST_RACES = (errors.SerializationFailure, errors.DeadlockDetected)

_url = os.environ.get("DATABASE_URL", "")
_idle: queue.LifoQueue[psycopg.Connection] = queue.LifoQueue()
_permits = threading.BoundedSemaphore(SIZE)

Result = TypeVar("Result")


class Unavailable(Exception):
    """The work has perhaps not been done, or was done and the answer was lost: nobody knows."""


@contextmanager
def connection() -> Iterator[psycopg.Connection]:
    """A connection in autocommit mode: each statement is its own transaction."""
    if not _permits.acquire(timeout=WAIT_SECONDS):
        raise Unavailable("no free connection")
    try:
        taken = _take()
        try:
            yield taken
        except BaseException:
            # Refusals come through here too, and leave a connection that is as good as new;
            # `transaction` has rolled back. Anything else may have left it half way through.
            if taken.closed or taken.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                taken.close()
            else:
                _idle.put(taken)
            raise
        _idle.put(taken)
    except LOST_RACES:
        raise
    except psycopg.Error as error:
        raise Unavailable(str(error)) from error
    finally:
        _permits.release()


def in_transaction(work: Callable[[psycopg.Connection], Result]) -> Result:
    """All of it or nothing. Begun again for as long as it loses races."""
    while True:
        try:
            with connection() as db, db.transaction():
                return work(db)
        except LOST_RACES:
            time.sleep(random.uniform(0, 0.02))


def _take() -> psycopg.Connection:
    while True:
        try:
            idle = _idle.get_nowait()
        except queue.Empty:
            return psycopg.connect(_url, autocommit=True, connect_timeout=5)
        # The server says nothing unless asked. If there is something to read on an idle
        # connection, it is the end of it.
        if not idle.closed and not select.select([idle.fileno()], [], [], 0)[0]:
            return idle
        idle.close()
