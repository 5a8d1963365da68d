"""What the program says: an answer is a value, and a refusal is an answer that ends the work."""

import json
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    status: int
    value: object = None  # JSON; nothing for 204
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        return b"" if self.status == 204 else json.dumps(self.value).encode()


class Refused(Exception):
    """Goes no further. Raised inside a transaction it rolls it back, so nothing of it is kept."""

    def __init__(self, status: int, title: str):
        super().__init__(title)
        self.answer = problem(status, title)


def problem(status: int, title: str) -> Answer:
    """RFC 9457."""
    return Answer(status, {"title": title, "status": status}, "application/problem+json")
