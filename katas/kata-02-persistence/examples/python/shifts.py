"""Shifts: the rule is about rows that the transaction does not write, so it locks them all."""

import psycopg

import database
from answer import Answer, Refused


def put(doctor: str, on_call: bool) -> Answer:
    with database.connection() as db:
        db.execute(
            "insert into doctors (doctor, on_call) values (%s, %s)"
            " on conflict (doctor) do update set on_call = excluded.on_call",
            (doctor, on_call),
        )
    return Answer(204)


def rota() -> Answer:
    with database.connection() as db:
        rows = db.execute("select doctor from doctors where on_call").fetchall()
    # Python sorts text by code point, whatever collation the database has.
    return Answer(200, {"on_call": sorted(doctor for (doctor,) in rows)})


def leave(doctor: str) -> Answer:
    return database.in_transaction(lambda db: _leave(db, doctor))


def _leave(db: psycopg.Connection, doctor: str) -> Answer:
    # In one order, so that two who leave at once do not wait for each other.
    team = dict(
        db.execute("select doctor, on_call from doctors order by doctor for update").fetchall()
    )
    if doctor not in team:
        raise Refused(404, "No such doctor")
    if not team.pop(doctor):
        return Answer(204)
    if not any(team.values()):
        raise Refused(409, "One doctor has to stay on call")
    db.execute("update doctors set on_call = false where doctor = %s", (doctor,))
    return Answer(204)
