"""Kata 04 done wrong, for the checker to refuse: check, then act.

The program beside this one, with one decision replaced. "Look whether we know the key; if not,
charge, and remember the answer" reads well and passes every test that sends one request after the
other. Two at once both look before either has remembered anything, and both charge.

Since the look-up is believed to be protection enough, the provider gets a fresh key for each call.
"""

import sys
import uuid
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

import database
import main
import pay
import provider
from answer import Answer, json_answer, problem


def check_then_act(account: str, key: str, payment: dict) -> Answer:
    fingerprint = pay.fingerprint_of(payment)
    known = database.run(
        """
        select fingerprint, status, media_type, body from idempotency_keys
        where account = %(account)s and key = %(key)s and expires_at > now() and status is not null
        """,
        account=account,
        key=key,
    )
    if known:
        owner, *stored = known[0]
        if owner != fingerprint:
            return problem(422, "This Idempotency-Key was used with another body")
        return replace(Answer(*stored), headers={"Idempotency-Replayed": "true"})

    try:
        charge_id = provider.charge(str(uuid.uuid4()), payment)
    except provider.Outage:
        return problem(503, "The payment provider is away", Retry_After="1")
    if charge_id is None:
        answer = problem(402, "The card was declined")
    else:
        answer = json_answer(
            201,
            {"payment_id": payment["payment_id"], "charge_id": charge_id, "status": "captured"},
        )
    remember(account, key, fingerprint, payment, charge_id, answer)
    return answer


def remember(account, key, fingerprint, payment, charge_id, answer) -> None:
    """Claims the key and finishes it, both when the money is gone. Whoever comes second finds the
    key taken, and tells its client of a charge that nobody will ever find again."""
    claimed = pay.store.claim(account, key, fingerprint)
    if isinstance(claimed, pay.store.Claimed):
        pay.store.finish_key(account, key, claimed.fence, answer, payment, charge_id)


pay.pay = check_then_act

if __name__ == "__main__":
    main.main()
