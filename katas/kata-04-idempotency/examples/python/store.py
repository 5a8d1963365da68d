"""What is remembered, and the statements that make the promises true.

A key goes

    free    → running   claim: one statement decides, so of fifty requests one wins
    running → finished  finish: the answer is stored, to be replayed until it expires
    running → running   claim: the lease is over, the same request takes the key over
    any     → free      its time is over, whether or not the reaper has come by

Times are the database's own (`now()`): instances do not have to agree about a clock.
"""

import json
import os
from dataclasses import dataclass

import database
from answer import Answer

LEASE_MS = int(os.environ.get("KEY_LEASE_MS", "30000"))
TTL_MS = int(os.environ.get("KEY_TTL_MS", "86400000"))

SCHEMA = """
-- The fencing tokens. A counter inside a key's row would start again with the next row of that
-- key, and an old handler could hold the same number as a new one; a sequence never repeats.
create sequence if not exists fences;

create table if not exists idempotency_keys (
    account     text        not null,
    key         text        not null,
    fingerprint text        not null,  -- of the request, to tell a retry from a mistake
    fence       bigint      not null,  -- who may finish or release; changes with each claim
    lease_until timestamptz not null,  -- a handler that has died holds the key no longer than this
    expires_at  timestamptz not null,  -- never before lease_until: the expiry is the longer one
    status      int,                   -- null while running
    media_type  text,
    body        text,
    primary key (account, key)         -- a key belongs to its account; this also picks the winner
);
create index if not exists idempotency_keys_expires_at on idempotency_keys (expires_at);

-- A record of what the provider has charged. The provider's id makes writing it twice harmless.
create table if not exists payments (
    account      text        not null,
    payment_id   text        not null,
    charge_id    text        not null,
    amount_cents bigint      not null,
    currency     text        not null,
    captured_at  timestamptz not null default now(),
    primary key (account, payment_id, charge_id)
);

create table if not exists inbox (
    message_id text        primary key,
    request    text,                   -- null once done: the card number is not kept for nothing
    fence      bigint,
    due_at     timestamptz not null default now(),  -- when to take it up: at once, or lease over
    done_at    timestamptz
);
create index if not exists inbox_due_at on inbox (due_at) where done_at is null;
create index if not exists inbox_done_at on inbox (done_at);
"""


@dataclass(frozen=True)
class Claimed:
    """The key is ours. Whoever takes it over later holds a higher fence."""

    fence: int


@dataclass(frozen=True)
class Finished:
    answer: Answer


class Running:
    """Another handler has the key, or had it when it died."""


class Reused:
    """The key was used for another request."""


def create_tables() -> None:
    database.run(SCHEMA)


def claim(account: str, key: str, fingerprint: str) -> Claimed | Finished | Running | Reused:
    """Takes the key if it is free, and otherwise says what is in the way."""
    values = {"account": account, "key": key, "fingerprint": fingerprint}
    while True:
        rows = database.run(
            """
            insert into idempotency_keys as k
                (account, key, fingerprint, fence, lease_until, expires_at)
            values (%(account)s, %(key)s, %(fingerprint)s, nextval('fences'),
                    now() + %(lease_ms)s * interval '1 millisecond',
                    now() + %(ttl_ms)s * interval '1 millisecond')
            on conflict (account, key) do update
                set fingerprint = excluded.fingerprint, fence = excluded.fence,
                    lease_until = excluded.lease_until, expires_at = excluded.expires_at,
                    status = null, media_type = null, body = null
                where k.expires_at <= now()
                   or (k.status is null and k.lease_until <= now()
                       and k.fingerprint = excluded.fingerprint)
            returning fence
            """,
            **values,
            lease_ms=LEASE_MS,
            ttl_ms=TTL_MS,
        )
        if rows:
            return Claimed(rows[0][0])
        # A second statement, because the first one's snapshot may be older than the row that was
        # in its way.
        rows = database.run(
            """
            select fingerprint, status, media_type, body from idempotency_keys
            where account = %(account)s and key = %(key)s
            """,
            **values,
        )
        if not rows:
            continue  # it expired between the two statements: now it can be had
        owner, status, media_type, body = rows[0]
        # First of all, and while the first request still runs too: a caller that mixes up its
        # keys must hear of it, and never wait for (or see) the other request's answer.
        if owner != fingerprint:
            return Reused()
        return Running() if status is None else Finished(Answer(status, media_type, body))


# A charge is a fact, whoever heard of it: recording it needs no fence and may happen twice.
_RECORD_CHARGE = """
    charge as (
        insert into payments (account, payment_id, charge_id, amount_cents, currency)
        select %(account)s, %(payment_id)s, %(charge_id)s::text, %(amount_cents)s, %(currency)s
        where %(charge_id)s::text is not null
        on conflict do nothing
    )
"""


def finish_key(
    account: str, key: str, fence: int, answer: Answer, payment: dict, charge_id: str | None
) -> bool:
    """Stores the answer, and the charge if there is one, in one transaction. False: too late,
    another handler has the key now, and nothing of that handler's was touched."""
    rows = database.run(
        f"""
        with {_RECORD_CHARGE}
        update idempotency_keys
            set status = %(status)s, media_type = %(media_type)s, body = %(body)s,
                expires_at = now() + %(ttl_ms)s * interval '1 millisecond'
            where account = %(account)s and key = %(key)s and fence = %(fence)s
            returning true
        """,
        account=account,
        key=key,
        fence=fence,
        status=answer.status,
        media_type=answer.media_type,
        body=answer.body,
        ttl_ms=TTL_MS,
        charge_id=charge_id,
        **_columns(payment),
    )
    return bool(rows)


def release_key(account: str, key: str, fence: int) -> None:
    """Ends the lease. The row stays: the outcome may be unknown, and then the key must not serve
    another request before its time is over."""
    database.run(
        """
        update idempotency_keys set lease_until = now()
        where account = %(account)s and key = %(key)s and fence = %(fence)s and status is null
        """,
        account=account,
        key=key,
        fence=fence,
    )


def find_payment(account: str, payment_id: str) -> dict | None:
    # A payment that was sent under two keys has two charges; the latest one is shown.
    rows = database.run(
        """
        select charge_id, amount_cents, currency from payments
        where account = %(account)s and payment_id = %(payment_id)s
        order by captured_at desc limit 1
        """,
        account=account,
        payment_id=payment_id,
    )
    if not rows:
        return None
    charge_id, amount_cents, currency = rows[0]
    return {
        "payment_id": payment_id,
        "amount_cents": amount_cents,
        "currency": currency,
        "charge_id": charge_id,
        "status": "captured",
    }


def keep_message(message: dict) -> None:
    """After this the message may be acknowledged. The primary key makes a second push nothing."""
    database.run(
        """
        insert into inbox (message_id, request) values (%(message_id)s, %(request)s)
        on conflict do nothing
        """,
        message_id=message["message_id"],
        request=json.dumps(message),
    )


def take_message() -> tuple[dict, int] | None:
    """A message that is due, with the fence under which it may be finished. Its lease is the time
    at which it is due again. `skip locked`: two instances take two messages, not turns."""
    rows = database.run(
        """
        update inbox set fence = nextval('fences'),
                         due_at = now() + %(lease_ms)s * interval '1 millisecond'
        where message_id = (select message_id from inbox
                            where done_at is null and due_at <= now()
                            order by due_at limit 1
                            for update skip locked)
        returning request, fence
        """,
        lease_ms=LEASE_MS,
    )
    return (json.loads(rows[0][0]), rows[0][1]) if rows else None


def finish_message(message: dict, fence: int, charge_id: str | None) -> None:
    database.run(
        f"""
        with {_RECORD_CHARGE}
        update inbox set done_at = now(), request = null
        where message_id = %(message_id)s and fence = %(fence)s
        """,
        message_id=message["message_id"],
        account=message["account"],
        fence=fence,
        charge_id=charge_id,
        **_columns(message),
    )


def postpone_message(message_id: str, fence: int, delay_ms: int) -> None:
    database.run(
        """
        update inbox set due_at = now() + %(delay_ms)s * interval '1 millisecond'
        where message_id = %(message_id)s and fence = %(fence)s and done_at is null
        """,
        message_id=message_id,
        fence=fence,
        delay_ms=delay_ms,
    )


def reap() -> None:
    """Deletes what nobody can ask for any more. A message that comes again after that is done
    again under the provider key it had: still one charge."""
    # `skip locked`: two reapers, or a reaper and a claim, never wait for each other.
    database.run(
        """
        delete from idempotency_keys where (account, key) in (
            select account, key from idempotency_keys
            where expires_at <= now() limit 1000 for update skip locked)
        """
    )
    database.run(
        """
        delete from inbox where message_id in (
            select message_id from inbox
            where done_at <= now() - %(ttl_ms)s * interval '1 millisecond'
            limit 1000 for update skip locked)
        """,
        ttl_ms=TTL_MS,
    )


def _columns(payment: dict) -> dict:
    return {name: payment[name] for name in ("payment_id", "amount_cents", "currency")}
