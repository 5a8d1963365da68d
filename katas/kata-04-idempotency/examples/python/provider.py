"""The payment provider, which really takes the money.

It is idempotent itself: the same provider key with the same body is one charge, for ever. That,
and not our table, is what saves us when a call was made and nobody heard the answer.
"""

import hashlib
import http.client
import json
import os
from urllib.parse import urlsplit

_address = urlsplit(os.environ["PAYMENT_PROVIDER_URL"])
_timeout_seconds = int(os.environ.get("PROVIDER_TIMEOUT_MS", "30000")) / 1000


class Outage(Exception):
    """No answer that can be relied on. The charge may have been made: only a call with the same
    provider key can tell, so this is never an answer to remember."""


def key_for(*parts: str) -> str:
    """The provider key is computed and not drawn: whoever retries after a crash has nothing but
    the request, and must find the same one. Two accounts never share one, and neither do two
    payments under one key that expired in between (the provider does not forget)."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def charge(provider_key: str, payment: dict) -> str | None:
    """The charge's id, or `None` if the card was declined, which is final."""
    body = {
        "amount_cents": payment["amount_cents"],
        "currency": payment["currency"],
        "card": payment["card"],
        "reference": payment["payment_id"],
    }
    # A connection of its own for each call: a kept one may be closed by the other side while we
    # write, which would look like an outage. `http.client` never repeats a call by itself.
    secure = _address.scheme == "https"
    connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = connect(_address.hostname, _address.port, timeout=_timeout_seconds)
    try:
        connection.request(
            "POST",
            _address.path + "/charges",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Idempotency-Key": provider_key},
        )
        response = connection.getresponse()
        text = response.read()
        if response.status == 402:
            return None
        if response.status != 201:
            raise Outage(f"the provider answered {response.status}")
        return json.loads(text)["charge_id"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise Outage(f"no answer from the provider: {error!r}") from error
    finally:
        connection.close()
