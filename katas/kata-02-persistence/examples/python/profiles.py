"""Profiles: a tag that is a hash of the content, so that it names exactly this content."""

import hashlib
import json

import psycopg
from psycopg.types.json import Jsonb

import database
from answer import Answer, Refused


def write(profile_id: str, data: dict, if_none_match: str | None, if_match: str | None) -> Answer:
    if if_none_match == "*":
        with database.connection() as db:
            created = db.execute(
                "insert into profiles (profile_id, data) values (%s, %s) on conflict do nothing",
                (profile_id, Jsonb(data)),
            )
        if created.rowcount == 0:
            raise Refused(412, "There is such a profile")
        return _shown(201, data)
    if if_match is None:
        raise Refused(428, "If-Match or If-None-Match is required")
    return database.in_transaction(lambda db: _replace(db, profile_id, data, if_match))


def _replace(db: psycopg.Connection, profile_id: str, data: dict, if_match: str) -> Answer:
    # Only the lock makes what is compared still true when it is written.
    present = _lock(db, profile_id)
    if present is None or _tag(present) != if_match:
        raise Refused(412, "The profile has changed, or is not there")
    _write(db, profile_id, data)
    return _shown(200, data)


def show(profile_id: str) -> Answer:
    with database.connection() as db:
        row = db.execute(
            "select data from profiles where profile_id = %s", (profile_id,)
        ).fetchone()
    if row is None:
        raise Refused(404, "No such profile")
    return _shown(200, row[0])


def increment(profile_id: str, name: str) -> Answer:
    return database.in_transaction(lambda db: _increment(db, profile_id, name))


def _increment(db: psycopg.Connection, profile_id: str, name: str) -> Answer:
    data = _lock(db, profile_id)
    if data is None:
        raise Refused(404, "No such profile")
    # `type() is`, because for Python True is an int, too.
    if type(data.get(name, 0)) is not int:
        raise Refused(422, "This member of the profile is no whole number")
    data[name] = data.get(name, 0) + 1
    _write(db, profile_id, data)
    return _shown(200, data)


def _lock(db: psycopg.Connection, profile_id: str) -> dict | None:
    row = db.execute(
        "select data from profiles where profile_id = %s for update", (profile_id,)
    ).fetchone()
    return row and row[0]


def _write(db: psycopg.Connection, profile_id: str, data: dict) -> None:
    db.execute("update profiles set data = %s where profile_id = %s", (Jsonb(data), profile_id))


def _tag(data: dict) -> str:
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return f'"{hashlib.sha256(canonical.encode()).hexdigest()}"'


def _shown(status: int, data: dict) -> Answer:
    return Answer(status, data, headers={"ETag": _tag(data)})
