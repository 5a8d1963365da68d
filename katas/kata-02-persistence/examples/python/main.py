"""Kata 02, "money that does not disappear", in Python: the HTTP side. Start reading at `money.py`.

There is no shutdown code: a process that is safe under SIGKILL at any moment needs none.
"""

import json
import os
import re
import sys
import traceback
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import database
import money
import profiles
import shifts
from answer import Answer, Refused, problem

MAX_BODY_BYTES = 64 * 1024
MAX_AMOUNT_CENTS = 10**12
MAX_BALANCE_CENTS = 10**15
ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


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
            answer = problem(503, "The database is away")
        except Exception:
            traceback.print_exc()
            answer = problem(500, "Something is wrong on our side")
        self.send(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond

    def route(self) -> Answer:
        body = self.read_body()  # also for a 404: an unread body would be the next request
        path, _, query = self.path.partition("?")
        match self.command, path.split("/")[1:]:
            case "GET", ["health"]:
                return Answer(200, {"status": "ok"})
            case "POST", ["accounts"]:
                opened = self.members(body, account_id=is_id, balance_cents=is_balance)
                return money.open_account(**opened)
            case "GET", ["accounts", account_id]:
                is_eventual = parse_qs(query).get("read") == ["eventual"]
                return money.show_account(known(account_id), is_eventual)
            case "POST", ["transfers"]:
                return money.transfer(self.transfer(body))
            case "POST", ["unsafe", "transfers"]:
                return money.unsafe_transfer(self.transfer(body))
            case "POST", ["payments"]:
                checks = {"payment_id": is_id, "account": is_id, "amount_cents": is_amount}
                return money.pay(self.members(body, **checks))
            case "GET", ["payments", payment_id]:
                return money.show_payment(known(payment_id))
            case "PUT", ["profiles", profile_id]:
                data = self.json_object(body)
                seen = self.headers.get("If-None-Match"), self.headers.get("If-Match")
                return profiles.write(known(profile_id), data, *seen)
            case "GET", ["profiles", profile_id]:
                return profiles.show(known(profile_id))
            case "POST", ["profiles", profile_id, "increment"]:
                name = self.members(body, field=is_id)["field"]
                return profiles.increment(known(profile_id), name)
            case "GET", ["shifts"]:
                return shifts.rota()
            case "PUT", ["shifts", doctor]:
                on_call = self.members(body, on_call=lambda value: type(value) is bool)["on_call"]
                return shifts.put(known(doctor), on_call)
            case "POST", ["shifts", doctor, "leave"]:
                return shifts.leave(known(doctor))
        raise Refused(404, "There is nothing here")

    def transfer(self, body: bytes) -> dict:
        checks = {"transfer_id": is_id, "from": is_id, "to": is_id, "amount_cents": is_amount}
        transfer = self.members(body, **checks)
        if transfer["from"] == transfer["to"]:
            raise Refused(422, "from and to must differ")
        return transfer

    def members(self, body: bytes, **checks) -> dict:
        """An object of exactly these members, each of which passes its check."""
        value = self.json_object(body)
        if set(value) != set(checks):
            raise Refused(422, f"The body must have {', '.join(checks)} and nothing else")
        for name, is_right in checks.items():
            if not is_right(value[name]):
                raise Refused(422, f"{name} is outside of its limits")
        return value

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
        return self.rfile.read(int(length))

    def send(self, answer: Answer) -> None:
        body = answer.body()
        self.send_response(answer.status)
        if answer.status != 204:
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
        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc()


def known(text: str) -> str:
    """What cannot be an id is nobody's."""
    if not is_id(text):
        raise Refused(404, "There is no such thing")
    return text


def is_id(value: object) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None


# `type() is`, because for Python True is an int, too.
def is_amount(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_AMOUNT_CENTS


def is_balance(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_BALANCE_CENTS


def main() -> None:
    with database.connection() as db:
        db.execute(money.SCHEMA)
    with suppress(KeyboardInterrupt):
        Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
