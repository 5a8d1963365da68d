"""What the program says: an answer is a value that can be sent now, or stored and sent again later."""

import json
from dataclasses import dataclass, field

JSON = "application/json"
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Answer:
    status: int
    media_type: str
    body: str  # the text itself, so that a replay is the same bytes and not a new rendering
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A request that goes no further. Carries the answer, so that any depth of code can refuse."""

    def __init__(self, status: int, title: str, **headers: str):
        super().__init__(title)
        self.answer = problem(status, title, **headers)


def json_answer(status: int, value: object) -> Answer:
    return Answer(status, JSON, json.dumps(value))


def problem(status: int, title: str, **headers: str) -> Answer:
    """RFC 9457. `headers` are spelled as arguments: `Retry_After="1"`."""
    return Answer(
        status,
        PROBLEM,
        json.dumps({"title": title, "status": status}),
        {name.replace("_", "-"): value for name, value in headers.items()},
    )
