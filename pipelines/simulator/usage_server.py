"""A local gateway's `GET /v1/usage`, of the shape that docs/usage_api.md assumes.

Requests of a window, oldest first, page by page with cursors that are places in that order; or
totals by model. A token sees its own workspace; unknown parameters, cursors and tokens are refused.
Faults can be ordered, request by request.
"""

import asyncio
import base64
import json
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipelines.simulator.loopback import serving

Row = dict[str, Any]  # a request, its fields as the API gives them

PAGE_DEFAULT, PAGE_LIMIT = 100, 1_000
PARAMETERS = {"start", "end", "limit", "cursor", "group_by"}

# What may go wrong with one request.
FAULTS = {
    "ok": "no fault",
    "429": "rate limited, without a word of when",
    "429 soon": "rate limited, Retry-After: 0",
    "429 at": "rate limited, Retry-After: a date that is now",
    "429 long": "rate limited for an hour",
    "500": "the gateway's own failure, JSON",
    "503": "a proxy's failure, HTML",
    "cut": "the answer breaks off half-way",
    "torn": "half an answer that says that it is whole",
    "slow": "the answer comes `slow_seconds` late",
    "moved": "a redirect to another host",
}


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it, and the status it answered."""

    parameters: dict[str, str]
    fault: str
    status: int


@dataclass
class LocalUsage:
    """A running server: where it listens, what it serves, and what it was asked so far.

    `rows` may be changed between two requests. `page_limit`: the most rows it gives on a page.
    """

    token: str
    rows: list[Row]
    page_limit: int = PAGE_LIMIT
    url: str = ""
    faults: Iterator[str] = field(default_factory=lambda: iter(()))
    slow_seconds: float = 1.0
    has_totals: bool = True
    totals: list[Row] | None = None  # to give instead of the sums of `rows`
    answer: Callable[[list[Row]], list[Row]] = list  # what a page gives for its rows
    requests: list[Asked] = field(default_factory=list)


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def serve(running: LocalUsage) -> Iterator[LocalUsage]:
    """Serves on 127.0.0.1 while the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/usage"
        with serving(app(running), listening):
            yield running


def faulty(kinds: Iterable[str]) -> Iterator[str]:
    """Faults in turn, for one request each. Raises ValueError for one there isn't."""
    for kind in kinds:
        if kind not in FAULTS:
            raise ValueError(f"There is no fault '{kind}'; there are: {', '.join(FAULTS)}.")
        yield kind


def app(running: LocalUsage) -> Starlette:
    """The server as an ASGI application."""

    async def endpoint(request: Request) -> Response:
        fault = next(running.faults, "ok")
        if fault == "slow":
            await asyncio.sleep(running.slow_seconds)
        try:
            response = _failure(fault) or JSONResponse(_answer(running, request))
        except Refused as refused:
            response = JSONResponse({"error": {"message": str(refused)}}, refused.status)
        if fault in ("cut", "torn"):
            half = bytes(response.body)[: len(response.body) // 2]
            length = len(response.body) if fault == "cut" else len(half)
            response.body = half
            response.headers["content-length"] = str(length)
        parameters = dict(request.query_params.multi_items())
        running.requests.append(Asked(parameters, fault, response.status_code))
        return response

    return Starlette(routes=[Route("/v1/usage", endpoint)])


def _failure(fault: str) -> Response | None:
    if fault.startswith("429"):
        now = format_datetime(datetime.now(UTC), usegmt=True)
        after = {"429 soon": "0", "429 at": now, "429 long": "3600"}.get(fault)
        headers = {"Retry-After": after} if after else None
        return JSONResponse({"error": {"message": "slow down"}}, 429, headers=headers)
    if fault == "500":
        return JSONResponse({"error": {"message": "internal error"}}, 500)
    if fault == "503":
        return Response("<html>Service Unavailable</html>", 503, media_type="text/html")
    if fault == "moved":
        return Response(status_code=302, headers={"Location": "http://127.0.0.1:9/v1/usage"})
    return None


def _answer(running: LocalUsage, request: Request) -> dict[str, Any]:
    """What a healthy gateway answers. Raises Refused."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or token != running.token:
        raise Refused(401, f"the token {token} is unknown")
    value = dict(request.query_params.multi_items())
    if unknown := value.keys() - PARAMETERS:
        raise Refused(400, f"unknown parameter {min(unknown)}")
    start = _instant(value.get("start", "2000-01-01T00:00:00Z"))
    end = _instant(value.get("end", "2100-01-01T00:00:00Z"))
    limit = min(int(value.get("limit", PAGE_DEFAULT)), running.page_limit)
    within = [row for row in running.rows if start <= _instant(str(row["timestamp"])) < end]
    if "group_by" in value:
        if value["group_by"] != "model" or not running.has_totals:
            raise Refused(400, "there is no such grouping")
        totals = _totals(within) if running.totals is None else running.totals
        return {"data": totals if within else [], "has_more": False, "next_cursor": None}
    within.sort(key=_place)
    if "cursor" in value:
        cursor = _uncovered(value["cursor"])
        within = [row for row in within if _place(row) > cursor]
    page, has_more = within[:limit], len(within) > limit
    return {
        "data": running.answer(page),
        "has_more": has_more,
        "next_cursor": _covered(_place(page[-1])) if has_more else None,
    }


def _totals(rows: list[Row]) -> list[Row]:
    sums: dict[Any, tuple[int, Decimal]] = {}
    for row in rows:
        count, credits = sums.get(row["model"], (0, Decimal(0)))
        sums[row["model"]] = (count + 1, credits + Decimal(str(row["credits_used"])))
    return [
        {"model": model, "request_count": count, "credits_used": str(credits)}
        for model, (count, credits) in sums.items()
    ]


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise Refused(400, f"{text} is no instant") from None


def _place(row: Row) -> list[str]:
    return [str(row["timestamp"]), str(row.get("request_id"))]


def _covered(place: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _uncovered(cursor: str) -> list[str]:
    try:
        place: list[str] = json.loads(base64.urlsafe_b64decode(cursor))
    except ValueError:
        raise Refused(400, "this cursor is unknown, or too old") from None
    return place


def request_row(number: int, at: datetime, **stated: Any) -> Row:
    """A request as the API gives it: the nine fields of the CSV."""
    return {
        "timestamp": at.isoformat(timespec="milliseconds") + "Z",
        "model": "gpt-4o" if number % 3 else "claude-sonnet",
        "api_key_id": f"key_{number % 2}",
        "prompt_tokens": 100 + number,
        "completion_tokens": 20,
        "credits_used": 2,
        "request_id": f"req_{number:06}",
        "latency_ms": 800,
        "fallback_depth": 0,
    } | stated


def traffic(first: datetime, count: int, apart: timedelta) -> list[Row]:
    """So many requests, one after the other."""
    return [request_row(number, first + number * apart) for number in range(count)]
