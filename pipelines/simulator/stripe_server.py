"""A local Stripe: serves a simulated account so that the real SDK can't tell the difference.

Lists come newest first with `created` windows, cursors and `has_more`; a key sees the objects of
its own mode; unknown parameters, ids, keys and versions are refused with Stripe's error JSON.
Faults can be ordered, request by request. Nothing is written here, and resources outside
`RESOURCES` don't exist.
"""

import asyncio
import hashlib
import json
import operator
import random
import re
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipelines.simulator.loopback import server, serving
from pipelines.simulator.stripe_account import API_VERSION, Object

EVENT_SECONDS = 30 * 86_400  # Stripe lists events of the last 30 days only
PAGE_DEFAULT, PAGE_LIMIT = 10, 100

# What may go wrong with one request.
FAULTS = {
    "ok": "no fault",
    "429": "rate limited; the SDK does not try again by itself",
    "429 retry": "rate limited, with Stripe-Should-Retry: true",
    "429 no retry": "rate limited, with Stripe-Should-Retry: false",
    "500": "Stripe's own failure, JSON",
    "503": "a proxy's failure, HTML",
    "cut": "the answer breaks off half-way; the SDK does not try again by itself",
    "slow": "the answer comes `slow_seconds` late",
}


@dataclass(frozen=True)
class Resource:
    """One of Stripe's lists: its objects, and the filters it takes beside `created` and paging."""

    kind: str
    filters: frozenset[str]


RESOURCES = {
    "charges": Resource("charge", frozenset({"customer", "payment_intent", "transfer_group"})),
    "refunds": Resource("refund", frozenset({"charge", "payment_intent"})),
    "disputes": Resource("dispute", frozenset({"charge", "payment_intent"})),
    "balance_transactions": Resource(
        "balance_transaction", frozenset({"currency", "payout", "source", "type"})
    ),
    "payment_intents": Resource("payment_intent", frozenset({"customer"})),
    "invoices": Resource(
        "invoice", frozenset({"collection_method", "customer", "status", "subscription"})
    ),
    "invoice_payments": Resource("invoice_payment", frozenset({"invoice", "payment", "status"})),
    "credit_notes": Resource("credit_note", frozenset({"customer", "invoice"})),
    "payouts": Resource("payout", frozenset({"destination", "status"})),
    "customers": Resource("customer", frozenset({"email"})),
    "events": Resource("event", frozenset({"type", "types"})),
}
PAGING = {"limit", "starting_after", "ending_before", "expand", "created"}
EXPANDABLE = {
    "balance_transaction",
    "failure_balance_transaction",
    "payment_intent",
    "charge",
    "latest_charge",
    "source",
    "refunds",
    "customer",
}
LINES_SHOWN = 10  # of an invoice, with the invoice; the others have a list of their own


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it, and the status it answered."""

    method: str
    path: str
    parameters: dict[str, str]
    fault: str
    status: int


@dataclass
class LocalStripe:
    """A running server: where it listens, and what it was asked so far."""

    base_url: str
    requests: list[Asked] = field(default_factory=list)


def seeded_faults(seed: int, *, share: float = 0.3, in_a_row: int = 2) -> Iterator[str]:
    """Faults without end, for `share` of the requests.

    Never more than `in_a_row` together, so that a patient client always gets through.
    """
    rng = random.Random(f"{seed}/stripe")
    kinds = sorted(FAULTS.keys() - {"ok", "slow"})
    together = 0
    while True:
        together = together + 1 if rng.random() < share and together < in_a_row else 0
        yield rng.choice(kinds) if together else "ok"


@contextmanager
def serve(
    account: Object | Path,
    *,
    faults: Iterable[str] = (),
    slow_seconds: float = 1.0,
    port: int = 0,
) -> Iterator[LocalStripe]:
    """Serves `account` (see `stripe_account.account`) on 127.0.0.1 while the context lasts.

    faults: names of FAULTS, one for each request in turn, then none. port: 0 takes a free one.
    An account given as a dict is read at each request, so a test may change it between two pages.
    Raises OSError when the port is taken, ValueError for an unknown fault.
    """
    running = LocalStripe("")
    with socket.create_server(("127.0.0.1", port)) as listening:
        running.base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        application = app(account, faults=faults, slow_seconds=slow_seconds, log=running.requests)
        with serving(application, listening):
            yield running


def serve_forever(account: Object | Path, *, port: int = 4242) -> None:
    """Serves `account` in the foreground until Ctrl-C; for a person who wants to look around."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        server(app(account)).run(sockets=[listening])


def app(
    account: Object | Path,
    *,
    faults: Iterable[str] = (),
    slow_seconds: float = 1.0,
    log: list[Asked] | None = None,
) -> Starlette:
    """The server as an ASGI application."""
    content: Object = (
        json.loads(account.read_text("utf-8")) if isinstance(account, Path) else account
    )
    if isinstance(faults, Collection) and (unknown := sorted(set(faults) - FAULTS.keys())):
        raise ValueError(f"There is no fault '{unknown[0]}'; there are: {', '.join(FAULTS)}.")
    coming = iter(faults)
    asked = [] if log is None else log

    async def endpoint(request: Request) -> Response:
        fault = next(coming, "ok")
        if fault == "slow":
            await asyncio.sleep(slow_seconds)
        response = respond(content, request, fault)
        if fault == "cut":
            response.headers["content-length"] = str(len(response.body))
            response.body = bytes(response.body)[: len(response.body) // 2]
        response.headers["request-id"] = f"req_local{len(asked):09d}"
        response.headers["stripe-version"] = request.headers.get("stripe-version", API_VERSION)
        parameters = dict(request.query_params.multi_items())
        asked.append(
            Asked(request.method, request.url.path, parameters, fault, response.status_code)
        )
        return response

    methods = ["GET", "POST", "DELETE"]
    return Starlette(routes=[Route("/{path:path}", endpoint, methods=methods)])


def respond(account: Object, request: Request, fault: str = "ok") -> Response:
    """What a request is answered; "slow" and "cut" are the way of an answer, not an answer."""
    try:
        return _failure(fault) or JSONResponse(_answer(account, request))
    except Refused as refused:
        return JSONResponse({"error": refused.error}, refused.status)


class Refused(Exception):
    """An answer that is no success, as Stripe words it."""

    def __init__(self, status: int, message: str, **details: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": "invalid_request_error"} | details


def _failure(fault: str) -> Response | None:
    if fault.startswith("429"):
        message = "Request rate limit exceeded. Learn more at https://docs.stripe.com/rate-limits."
        error = {"code": "rate_limit", "message": message, "type": "invalid_request_error"}
        hint = {"429 retry": "true", "429 no retry": "false"}.get(fault)
        return JSONResponse(
            {"error": error}, 429, headers={"stripe-should-retry": hint} if hint else None
        )
    if fault == "500":
        return JSONResponse(
            {"error": {"message": "An unknown error occurred", "type": "api_error"}}, 500
        )
    if fault == "503":
        return Response(
            "<html><body>Service Unavailable</body></html>", 503, media_type="text/html"
        )
    return None


def _answer(account: Object, request: Request) -> Object:
    """What a healthy Stripe answers. Raises Refused."""
    livemode = _mode(request)
    version = request.headers.get("stripe-version", API_VERSION)
    if version != API_VERSION:
        raise Refused(
            400, f"Invalid Stripe API version: {version}. This local Stripe speaks {API_VERSION}."
        )
    parts = request.url.path.strip("/").split("/")
    if len(parts) == 4 and parts[1] == "invoices" and parts[3] == "lines":
        return _lines(_View(account, livemode), parts[2], request)
    is_known = len(parts) in (2, 3) and parts[0] == "v1" and parts[1] in {*RESOURCES, "account"}
    if (
        request.method != "GET"
        or not is_known
        or (parts[1] == "account") != (parts[1:] == ["account"])
    ):
        raise Refused(404, f"Unrecognized request URL ({request.method}: {request.url.path}).")
    if parts[1] in account.get("forbidden", ()):
        raise Refused(
            403, f"The provided key does not have the required permissions for {parts[1]}."
        )
    if parts[1] == "account":
        identity: Object = account["account"]
        return identity
    resource = RESOURCES[parts[1]]
    seen = _View(account, livemode)
    if len(parts) == 3:
        given = request.query_params.multi_items()
        _refuse_unknown((name for name, _ in given), {"expand"})
        paths = [value for name, value in given if name.startswith("expand[")]
        return seen.expanded(seen.get(resource.kind, parts[2], status=404), paths)
    return _page(seen, resource, request)


def _mode(request: Request) -> bool:
    """Whether the key is a live one. Raises Refused for no key, or none of Stripe's form."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Refused(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization "
            "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )
    form = re.fullmatch(r"(sk|rk)_(live|test)_\w+", key)
    if form is None:
        raise Refused(401, f"Invalid API Key provided: {'*' * max(0, len(key) - 4)}{key[-4:]}")
    return form[2] == "live"


def _lines(seen: "_View", invoice_id: str, request: Request) -> Object:
    """The lines of an invoice, in their order."""
    value = dict(request.query_params.multi_items())
    _refuse_unknown(value, {"limit", "starting_after"})
    rows = seen.get("invoice", invoice_id, status=404)["lines"]["data"]
    ids = [row["id"] for row in rows]
    first = ids.index(value["starting_after"]) + 1 if "starting_after" in value else 0
    last = first + _integer("limit", value.get("limit", str(PAGE_DEFAULT)))
    return {
        "object": "list",
        "data": rows[first:last],
        "has_more": last < len(rows),
        "url": request.url.path,
    }


def _page(seen: "_View", resource: Resource, request: Request) -> Object:
    given = request.query_params.multi_items()
    _refuse_unknown((name for name, _ in given), PAGING | resource.filters)
    value = dict(given)
    limit = _integer("limit", value.get("limit", str(PAGE_DEFAULT)))
    if not 1 <= limit <= PAGE_LIMIT:
        raise Refused(400, f"Invalid limit: must be between 1 and {PAGE_LIMIT}.", param="limit")
    after, before = value.get("starting_after"), value.get("ending_before")
    if after and before:
        raise Refused(
            400, "You may only specify one of these parameters: ending_before, starting_after."
        )

    rows = [row for row in seen.all(resource.kind) if _in_window(row["created"], value)]
    wanted_types = [text for name, text in given if name.startswith("types[")]
    for name in resource.filters & value.keys():
        rows = [row for row in rows if _filtered_by(row, name) == value[name]]
    for name in value:
        if found := re.fullmatch(r"payment\[(\w+)\]", name):
            rows = [row for row in rows if row["payment"].get(found[1]) == value[name]]
    if wanted_types:
        rows = [row for row in rows if row["type"] in wanted_types]
    rows.sort(key=_place, reverse=True)

    # A cursor is a place in the order, whether or not its object passes the filters.
    if before:
        cursor = _place(seen.get(resource.kind, before, param="ending_before"))
        rows = [row for row in rows if _place(row) > cursor]
        page, has_more = rows[-limit:], len(rows) > limit
    else:
        if after:
            cursor = _place(seen.get(resource.kind, after, param="starting_after"))
            rows = [row for row in rows if _place(row) < cursor]
        page, has_more = rows[:limit], len(rows) > limit
    paths = []
    for name, path in given:
        if name.startswith("expand["):
            if not path.startswith("data."):
                raise Refused(400, f"This property cannot be expanded ({path}).", param=name)
            paths.append(path.removeprefix("data."))
    return {
        "object": "list",
        "data": [seen.expanded(row, paths) for row in page],
        "has_more": has_more,
        "url": request.url.path,
    }


def _filtered_by(row: Object, name: str) -> Any:
    """The value a filter goes by; a balance transaction does not show its payout."""
    return row.get("_payout") if name == "payout" else row.get(name)


def _place(row: Object) -> tuple[int, str]:
    return row["created"], row["id"]


def _refuse_unknown(names: Iterable[str], known: Iterable[str]) -> None:
    allowed = frozenset(known)
    for name in names:
        form = re.fullmatch(r"(\w+)(\[\w*\])?", name)
        base = form[1] if form else name
        has_bracket = form is not None and form[2] is not None
        fits = (
            base in {"created", "expand", "types", "payment"}
            if has_bracket
            else base not in {"expand", "types", "payment"}
        )
        if base not in allowed or not fits or (base == "created" and name not in WINDOW):
            raise Refused(
                400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name
            )


WINDOW: dict[str, Callable[[int, int], bool]] = {
    "created": operator.eq,
    "created[gt]": operator.gt,
    "created[gte]": operator.ge,
    "created[lt]": operator.lt,
    "created[lte]": operator.le,
}


def _in_window(created: int, value: dict[str, str]) -> bool:
    bounds = ((name, holds) for name, holds in WINDOW.items() if name in value)
    return all(holds(created, _integer(name, value[name])) for name, holds in bounds)


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"-?\d{1,15}", text):
        raise Refused(400, f"Invalid integer: {text}", code="parameter_invalid_integer", param=name)
    return int(text)


class _View:
    """The account as a key of one mode sees it."""

    def __init__(self, account: Object, livemode: bool) -> None:
        self.account = account
        self.mode = None if account.get("mixed_modes") else livemode
        self.charges = {charge["id"]: charge for charge in account["objects"].get("charge", [])}
        self.others = {
            row["id"]: row
            for kind in ("refund", "dispute", "payout")
            for row in account["objects"].get(kind, [])
        }

    def all(self, kind: str) -> list[Object]:
        if kind == "event":
            return self._events()
        rows: list[Object] = self.account["objects"].get(kind, [])
        return [row for row in rows if self.mode is None or self._livemode(row) == self.mode]

    def get(self, kind: str, object_id: str, *, status: int = 400, param: str = "id") -> Object:
        for row in self.all(kind):
            if row["id"] == object_id:
                return row
        named = f"No such {kind.replace('_', ' ')}: '{object_id}'"
        if kind in {"charge", "payment_intent"} and self.mode is not None:
            own, other = ("live", "test") if self.mode else ("test", "live")
            if any(row["id"] == object_id for row in self.account["objects"].get(kind, [])):
                named += f"; a similar object exists in {other} mode, but a {own} mode key was used"
        raise Refused(status, named, code="resource_missing", param=param)

    def expanded(self, row: Object, paths: list[str]) -> Object:
        """A copy of `row` with the ids at dotted `paths` replaced by their objects."""
        row = {name: value for name, value in row.items() if not name.startswith("_")}
        if row["object"] == "invoice" and len(row["lines"]["data"]) > LINES_SHOWN:
            shown = row["lines"]["data"][:LINES_SHOWN]
            row["lines"] = row["lines"] | {"data": shown, "has_more": True}
        for path in paths:
            name, _, rest = path.partition(".")
            if name not in EXPANDABLE or name not in row:
                raise Refused(400, f"This property cannot be expanded ({path}).", param="expand")
            if name == "refunds":
                row[name] = self._refunds(row["id"])
            elif isinstance(row[name], dict):
                row[name] = self.expanded(row[name], [rest] if rest else [])
            elif name == "customer" and row[name] is not None:
                row[name] = self._customer(row[name])
            elif row[name] is not None:
                row[name] = self.expanded(self._any(row[name]), [rest] if rest else [])
        return row

    def _any(self, object_id: str) -> Object:
        for rows in self.account["objects"].values():
            for row in rows:
                if row["id"] == object_id:
                    found: Object = row
                    return found
        raise Refused(400, f"No such object: '{object_id}'", code="resource_missing")

    def _customer(self, customer_id: str) -> Object:
        """A customer, or what stays of one that was deleted."""
        for row in self.account["objects"].get("customer", []):
            if row["id"] == customer_id:
                return dict(row)
        return {"id": customer_id, "object": "customer", "deleted": True}

    def _refunds(self, charge_id: str) -> Object:
        rows = sorted(
            (r for r in self.all("refund") if r["charge"] == charge_id), key=_place, reverse=True
        )
        return {
            "object": "list",
            "data": rows[:PAGE_DEFAULT],
            "has_more": len(rows) > PAGE_DEFAULT,
            "url": f"/v1/charges/{charge_id}/refunds",
        }

    def _livemode(self, row: Object) -> bool:
        """Refunds and balance transactions don't say their mode: it is their charge's."""
        if "livemode" in row:
            return bool(row["livemode"])
        charge_id = row.get("charge") or row.get("source")
        if charge_id in self.charges:
            return bool(self.charges[charge_id]["livemode"])
        if row["object"] == "balance_transaction" and charge_id in self.others:
            return self._livemode(self.others[charge_id])
        return True

    def _events(self) -> list[Object]:
        """What happened in the last 30 days, as far as the objects tell."""
        since = self.account["as_of"] - EVENT_SECONDS
        rows: list[Object] = list(self.account["objects"].get("event", []))
        for charge in self.all("charge"):
            rows.append(_event(f"charge.{charge['status']}", charge, charge["livemode"]))
        for refund in self.all("refund"):
            rows.append(_event("refund.created", refund, self._livemode(refund)))
            if refund["status"] == "failed":
                rows.append(_event("refund.failed", refund, self._livemode(refund)))
        for dispute in self.all("dispute"):
            rows.append(_event("charge.dispute.created", dispute, dispute["livemode"]))
            if dispute["status"] in {"won", "lost", "warning_closed"}:
                rows.append(_event("charge.dispute.closed", dispute, dispute["livemode"]))
        return [row for row in rows if row["created"] >= since]


def _event(kind: str, subject: Object, livemode: bool) -> Object:
    digest = hashlib.sha256(f"{kind} {subject['id']}".encode()).hexdigest()[:24]
    request: dict[str, Any] = {"id": None, "idempotency_key": None}
    return {
        "id": f"evt_1{digest}",
        "object": "event",
        "api_version": API_VERSION,
        "created": subject["created"],
        "data": {"object": subject},
        "livemode": livemode,
        "pending_webhooks": 0,
        "request": request,
        "type": kind,
    }
