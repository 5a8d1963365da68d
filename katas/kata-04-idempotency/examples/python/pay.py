"""The use cases. Both ways in (a request with a key, a message with an id) follow one rule:

1. write down that we are about to charge,
2. charge, under a provider key that anybody who retries would compute as well,
3. write down what came of it, unless somebody else has taken over meanwhile.

A crash between any two of these leaves something that a retry completes.
"""

import hashlib
import json
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import database
import provider
import store
from answer import Answer, json_answer, problem

PAYMENT_MEMBERS = ("payment_id", "amount_cents", "currency", "card")


def pay(account: str, key: str, payment: dict) -> Answer:
    fingerprint = fingerprint_of(payment)
    match store.claim(account, key, fingerprint):
        case store.Reused():
            return problem(422, "This Idempotency-Key was used with another body")
        case store.Running():
            return _busy()
        case store.Finished(answer):
            return replace(answer, headers={"Idempotency-Replayed": "true"})
        case store.Claimed(fence):
            return _charge_and_finish(account, key, fingerprint, fence, payment)


def _charge_and_finish(
    account: str, key: str, fingerprint: str, fence: int, payment: dict
) -> Answer:
    try:
        charge_id = provider.charge(provider.key_for("pay", account, key, fingerprint), payment)
    except provider.Outage as outage:
        print(f"pay: {outage}", file=sys.stderr)
        store.release_key(account, key, fence)
        return problem(503, "The payment provider is away", Retry_After="1")
    if charge_id is None:
        answer = problem(402, "The card was declined")
    else:
        answer = json_answer(
            201,
            {"payment_id": payment["payment_id"], "charge_id": charge_id, "status": "captured"},
        )
    if store.finish_key(account, key, fence, answer, payment, charge_id):
        return answer
    # We took longer than the lease. What counts is what our successor stores.
    return _busy()


def _busy() -> Answer:
    return problem(409, "A request with this Idempotency-Key is running", Retry_After="1")


def fingerprint_of(payment: dict) -> str:
    """Of the values and not of the bytes: white space and order of members are no difference. A
    hash, because the table has no business with card numbers."""
    values = [payment[name] for name in PAYMENT_MEMBERS]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


# Messages -------------------------------------------------------------------------------------

WORKERS = 16
POLL_SECONDS = 0.5
# Not doubled with each attempt: what was acknowledged has to be done soon after an outage ends.
RETRY_MS = 1000

_something_came = threading.Event()


def accept(message: dict) -> None:
    """Once this returns, the broker may forget the message."""
    store.keep_message(message)
    _something_came.set()


def work() -> None:
    """Does what is in the inbox, for ever. Polling is not a fallback for a lost wake-up only: it
    also finds what another instance, or this one before it crashed, has left."""
    free = threading.Semaphore(WORKERS)
    pool = ThreadPoolExecutor(WORKERS)

    def do(message: dict, fence: int) -> None:
        try:
            _do_message(message, fence)
        except database.Unavailable:
            pass  # its lease runs out, and then it is taken up again
        except Exception:
            traceback.print_exc()
        finally:
            free.release()

    while True:
        # A message is taken only when a worker is free: in a queue its lease would run out.
        free.acquire()
        taken = None
        try:
            taken = store.take_message()
        except database.Unavailable as error:
            print(f"inbox: {error}", file=sys.stderr)
        if taken:
            pool.submit(do, *taken)
        else:
            free.release()
            _something_came.wait(POLL_SECONDS)
            _something_came.clear()


def _do_message(message: dict, fence: int) -> None:
    provider_key = provider.key_for("message", message["message_id"], fingerprint_of(message))
    try:
        charge_id = provider.charge(provider_key, message)
    except provider.Outage as outage:
        print(f"message: {outage}", file=sys.stderr)
        store.postpone_message(message["message_id"], fence, RETRY_MS)
        return
    store.finish_message(message, fence, charge_id)  # declined is done, too


def reap() -> None:
    """Keeps the tables small, for ever. Promises do not depend on it: `claim` looks at the time."""
    while True:
        try:
            store.reap()
        except database.Unavailable as error:
            print(f"reaper: {error}", file=sys.stderr)
        time.sleep(1)
