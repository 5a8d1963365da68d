"""Accounts, transfers and payments: one transaction each, and one order of locks for all."""

import psycopg

import database
import replica
from answer import Answer, Refused

# The lab has made `accounts` and `payments`. What is missing is what makes an id unique: no look
# finds a row that is not committed yet, a unique index knows of it.
SCHEMA = """
create unique index if not exists payments_payment_id on payments (payment_id);
create table if not exists transfers (
    transfer_id  text primary key,
    from_account text not null,
    to_account   text not null,
    amount_cents bigint not null
);
"""


def open_account(account_id: str, balance_cents: int) -> Answer:
    with database.connection() as db:
        opened = db.execute(
            "insert into accounts (account_id, balance_cents) values (%s, %s)"
            " on conflict do nothing",
            (account_id, balance_cents),
        )
    if opened.rowcount == 0:
        raise Refused(409, "There is such an account")
    return Answer(201, {"account_id": account_id, "balance_cents": balance_cents})


def show_account(account_id: str, is_eventual: bool) -> Answer:
    if is_eventual and replica.is_there():
        balance, staleness_ms = replica.look(account_id)
    else:
        with database.connection() as db:
            balance = _balance(db, account_id)
        # From the primary, so nothing is missing.
        staleness_ms = 0
    if balance is None:
        raise Refused(404, "No such account")
    shown = {"account_id": account_id, "balance_cents": balance}
    return Answer(200, shown | ({"staleness_ms": staleness_ms} if is_eventual else {}))


def transfer(body: dict) -> Answer:
    return database.in_transaction(lambda db: _transfer(db, body))


def _transfer(db: psycopg.Connection, body: dict) -> Answer:
    # Whoever comes second waits here until the first is through: then the id is known, or free.
    noted = db.execute(
        "insert into transfers values (%(transfer_id)s, %(from)s, %(to)s, %(amount_cents)s)"
        " on conflict do nothing",
        body,
    )
    if noted.rowcount == 0:
        known = db.execute(
            "select from_account, to_account, amount_cents from transfers where transfer_id = %s",
            (body["transfer_id"],),
        ).fetchone()
        return _same_again(known, (body["from"], body["to"], body["amount_cents"]), body)
    # Locked in the order of the ids: opposite transfers meet at the same row first.
    balances = dict(
        db.execute(
            "select account_id, balance_cents from accounts"
            " where account_id in (%(from)s, %(to)s) order by account_id for update",
            body,
        ).fetchall()
    )
    if len(balances) < 2:
        raise Refused(404, "No such account")
    if balances[body["from"]] < body["amount_cents"]:
        raise Refused(409, "Not enough money")
    db.execute(
        "update accounts set balance_cents = balance_cents"
        " + case account_id when %(to)s then %(amount_cents)s else - %(amount_cents)s end"
        " where account_id in (%(from)s, %(to)s)",
        body,
    )
    return Answer(201, body)


def unsafe_transfer(body: dict) -> Answer:
    """Four statements that nothing holds together, as step 1 wants to see them."""
    write = "update accounts set balance_cents = %s where account_id = %s"
    with database.connection() as db:
        payer = _balance(db, body["from"])
        payee = _balance(db, body["to"])
        if payer is None or payee is None:
            raise Refused(404, "No such account")
        if payer < body["amount_cents"]:
            raise Refused(409, "Not enough money")
        db.execute(write, (payer - body["amount_cents"], body["from"]))
        db.execute(write, (payee + body["amount_cents"], body["to"]))
    return Answer(201, body)


def pay(body: dict) -> Answer:
    return database.in_transaction(lambda db: _pay(db, body))


def _pay(db: psycopg.Connection, body: dict) -> Answer:
    # The row first: a duplicate never comes to the debit.
    recorded = db.execute(
        "insert into payments (payment_id, account_id, amount_cents)"
        " values (%(payment_id)s, %(account)s, %(amount_cents)s) on conflict do nothing",
        body,
    )
    if recorded.rowcount == 0:
        known = _payment(db, body["payment_id"])
        return _same_again(known, (body["account"], body["amount_cents"]), body)
    # Question and write are one statement, so nothing can come in between.
    taken = db.execute(
        "update accounts set balance_cents = balance_cents - %(amount_cents)s"
        " where account_id = %(account)s and balance_cents >= %(amount_cents)s",
        body,
    )
    if taken.rowcount == 0:
        if _balance(db, body["account"]) is None:
            raise Refused(404, "No such account")
        raise Refused(409, "Not enough money")
    return Answer(201, body)


def show_payment(payment_id: str) -> Answer:
    with database.connection() as db:
        found = _payment(db, payment_id)
    if found is None:
        raise Refused(404, "No such payment")
    account, amount_cents = found
    return Answer(
        200, {"payment_id": payment_id, "account": account, "amount_cents": amount_cents}
    )


def _balance(db: psycopg.Connection, account_id: str) -> int | None:
    row = db.execute(
        "select balance_cents from accounts where account_id = %s", (account_id,)
    ).fetchone()
    return row and row[0]


def _payment(db: psycopg.Connection, payment_id: str) -> tuple | None:
    return db.execute(
        "select account_id, amount_cents from payments where payment_id = %s", (payment_id,)
    ).fetchone()


def _same_again(known: tuple | None, asked: tuple, body: dict) -> Answer:
    """The first answer again, unless the id stood for something else."""
    if known != asked:
        raise Refused(422, "This id was used for another request")
    return Answer(200, body)
