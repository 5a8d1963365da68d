"""Kata 04, "charge once", in Python: the HTTP side. Start reading at `pay.py` for the idea.

There is no shutdown code: a process that is safe under SIGKILL at any moment needs none.
"""

import json
import os
import re
import sys
import threading
import traceback
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import database
import pay
import store
from answer import Answer, Refused, json_answer, problem

MAX_BODY_BYTES = 64 * 1024
MAX_AMOUNT_CENTS = 2**53 - 1  # the largest whole number that every JSON reader keeps exact

ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,64}")
BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._-]{1,64})")
# With and without quotes it is one key: the quotes are how it is written, not what it is.
KEY = re.compile(r'"([A-Za-z0-9._:-]{1,255})"|([A-Za-z0-9._:-]{1,255})')
CURRENCY = re.compile(r"[A-Z]{3}")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes; the second must not wait

    def respond(self) -> None:
        try:
            answer = self.route()
        except Refused as refused:
            answer = refused.answer
        except database.Unavailable as error:
            print(error, file=sys.stderr)
            answer = problem(503, "The database is away", Retry_After="1")
        except Exception:
            traceback.print_exc()
            answer = problem(500, "Something is wrong on our side")
        self.send(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond

    def route(self) -> Answer:
        body = self.read_body()  # also for a 404: an unread body would be the next request
        match self.command, self.path.partition("?")[0].split("/")[1:]:
            case "GET", ["health"]:
                return json_answer(200, {"status": "ok"})
            case "POST", ["pay"]:
                account = self.account()
                key = self.key()
                return pay.pay(account, key, payment_in(self.json_object(body)))
            case "GET", ["payments", payment_id]:
                return show_payment(self.account(), unquote(payment_id))
            case "POST", ["messages"]:
                return take_message(self.json_object(body))
        raise Refused(404, "There is nothing here")

    def account(self) -> str:
        found = BEARER.fullmatch(self.headers.get("Authorization", ""))
        if not found:
            title = "Authorization: Bearer <account> is missing or malformed"
            raise Refused(401, title, WWW_Authenticate="Bearer")
        return found[1]

    def key(self) -> str:
        lines = self.headers.get_all("Idempotency-Key", [])
        found = KEY.fullmatch(lines[0]) if len(lines) == 1 else None
        if not found:
            raise Refused(400, "Idempotency-Key is missing or malformed")
        return found[1] or found[2]

    def json_object(self, body: bytes) -> dict:
        media_type = self.headers.get("Content-Type", "application/json")
        if media_type.partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "The body must be application/json")
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without end
            raise Refused(400, "The body is not JSON") from None
        if not isinstance(value, dict):
            raise Refused(422, "The body must be a JSON object")
        return value

    def read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not re.fullmatch(r"[0-9]{1,15}", length):
            self.close_connection = True  # nobody knows where the next request begins
            raise Refused(411, "Content-Length is missing or malformed")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise Refused(413, "The body is too long")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            raise Refused(400, "The body ended too early")
        return body

    def send(self, answer: Answer) -> None:
        body = answer.body.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.media_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code, message=None, explain=None) -> None:
        """What `http.server` refuses by itself: as a problem and not as HTML. To a method without
        a `do_…` it says 501, which by the contract would mean that we have not begun."""
        self.close_connection = True
        self.send(problem(405 if code == 501 else int(code), message or "The request is malformed"))

    def log_message(self, format, *args) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # The default backlog of 5 turns fifty clients at once into retransmitted connection requests,
    # which cost a second each.
    request_queue_size = 256

    def handle_error(self, request, client_address) -> None:
        # A client that hangs up is none of our errors; what it asked for is done all the same.
        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc()


def is_text(value: object, longest: int) -> bool:
    """Text that PostgreSQL can hold: it has no U+0000, and half a surrogate pair is no UTF-8.
    Without this, such a body would be a 5xx."""
    if not isinstance(value, str) or not 1 <= len(value) <= longest or "\0" in value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def payment_in(value: dict) -> dict:
    """The payment, or a refusal."""
    if set(value) != set(pay.PAYMENT_MEMBERS):
        raise Refused(422, f"The body must have {', '.join(pay.PAYMENT_MEMBERS)} and nothing else")
    if not is_text(value["payment_id"], 64) or not is_text(value["card"], 64):
        raise Refused(422, "payment_id and card must be text of 1 to 64 characters")
    # `type() is`, because for Python True is an int, too.
    amount = value["amount_cents"]
    if type(amount) is not int or not 1 <= amount <= MAX_AMOUNT_CENTS:
        raise Refused(422, "amount_cents must be a whole number from 1 to 2^53 - 1")
    if not isinstance(value["currency"], str) or not CURRENCY.fullmatch(value["currency"]):
        raise Refused(422, "currency must be three capital letters")
    return value


def show_payment(account: str, payment_id: str) -> Answer:
    payment = store.find_payment(account, payment_id) if is_text(payment_id, 64) else None
    if payment is None:
        raise Refused(404, "There is no such payment")
    return json_answer(200, payment)


def take_message(message: dict) -> Answer:
    kind, message_id, account = (message.get(name) for name in ("type", "message_id", "account"))
    # Acknowledged without effect: a type that we do not know is for somebody else, and refusing
    # it would only make it come again.
    if isinstance(kind, str) and kind != "payment.requested":
        return json_answer(202, {"status": "ignored"})
    if not isinstance(kind, str) or not is_text(message_id, 255):
        raise Refused(422, "message_id and type must be text")
    if not isinstance(account, str) or not ACCOUNT.fullmatch(account):
        raise Refused(422, "account must be 1 to 64 of A-Z a-z 0-9 . _ -")
    # Unlike the body of a request, an event may grow members that are not for us.
    payment = payment_in({name: message[name] for name in pay.PAYMENT_MEMBERS if name in message})
    pay.accept({"message_id": message_id, "account": account, **payment})
    return json_answer(202, {"status": "accepted"})


def main() -> None:
    store.create_tables()
    for task in (pay.work, pay.reap):
        threading.Thread(target=task, daemon=True).start()
    with suppress(KeyboardInterrupt):
        Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
