"""Stripe through its API: charges, refunds and disputes become raw.stripe_*, each a new row
whenever it has changed.

Where a night begins to list is a fact of raw itself: the newest `created` that raw holds of a
resource, less an overlap; the first night lists everything. What lies before is closed, but for
what is not final: that is read again by id, however old (facts/reconciliation.md, section 2).
Nothing else is remembered, so a repeated night appends nothing. Objects are listed newest first
without an upper end, because a night takes everything that has arrived (contract, "The clock").
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import tenacity

from assets.stripe_objects import TABLES as STRIPE_TABLES
from assets.stripe_objects import append_changed, kept_metadata
from pipelines.calendar import Clock
from pipelines.settings import Settings, SettingsError
from pipelines.store import Draft, StoreError

if TYPE_CHECKING:
    import stripe

log = logging.getLogger("meterhouse.land")

TABLES = STRIPE_TABLES

VERSION = "2026-10-28.endive"
OVERLAP = timedelta(days=2)  # an object may become visible a little after its `created`
PAGE = 100  # Stripe's limit
BATCH = 10_000  # objects held before they are written
ATTEMPTS = 8
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Resource:
    """One kind of object: where it is listed, what is kept of it, and which of those in raw are not
    final.
    """

    name: str
    table: str
    key: str
    row: Callable[[Mapping[str, Any], bool], dict[str, Any]]
    not_final: str  # SQL over the newest row of each id
    expand: tuple[str, ...] = ()


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _id(value: Any) -> str | None:
    """An id, whether the field holds the id or the object."""
    if isinstance(value, Mapping):
        value = value.get("id")
    return str(value) if value else None


def charge_row(stated: Mapping[str, Any], livemode: bool) -> dict[str, Any]:
    """A Charge of the API as a row of raw.stripe_charges."""
    return {
        "charge_id": stated["id"],
        "origin": "api",
        "livemode": stated.get("livemode", livemode),
        "created_at": _at(stated["created"]),
        "status": stated["status"],
        "amount_minor": stated["amount"],
        "amount_captured_minor": stated.get("amount_captured", 0),
        "amount_refunded_minor": stated.get("amount_refunded", 0),
        "currency": stated["currency"].lower(),
        "captured": stated.get("captured", False),
        "refunded": stated.get("refunded", False),
        "disputed": stated.get("disputed", False),
        "payment_intent_id": _id(stated.get("payment_intent")),
        "stripe_invoice_id": _id(stated.get("invoice")),
        "customer_id": _id(stated.get("customer")),
        "balance_transaction_id": _id(stated.get("balance_transaction")),
        "description": stated.get("description"),
        "receipt_url": stated.get("receipt_url"),
        "metadata": kept_metadata(stated.get("metadata")),
    }


def refund_row(stated: Mapping[str, Any], livemode: bool) -> dict[str, Any]:
    """A Refund of the API, its balance transaction expanded, as a row of raw.stripe_refunds."""
    transaction = stated.get("balance_transaction")
    return {
        "refund_id": stated["id"],
        "origin": "api",
        "livemode": livemode,
        "charge_id": _id(stated.get("charge")),
        "payment_intent_id": _id(stated.get("payment_intent")),
        "created_at": _at(stated["created"]),
        "status": stated["status"],
        "amount_minor": stated["amount"],
        "currency": stated["currency"].lower(),
        "failure_reason": stated.get("failure_reason"),
        "reason": stated.get("reason"),
        "reporting_category": transaction.get("reporting_category")
        if isinstance(transaction, Mapping)
        else None,
        "metadata": kept_metadata(stated.get("metadata")),
    }


def dispute_row(stated: Mapping[str, Any], livemode: bool) -> dict[str, Any]:
    """A Dispute of the API as a row of raw.stripe_disputes."""
    return {
        "dispute_id": stated["id"],
        "origin": "api",
        "livemode": stated.get("livemode", livemode),
        "charge_id": _id(stated.get("charge")),
        "payment_intent_id": _id(stated.get("payment_intent")),
        "created_at": _at(stated["created"]),
        "status": stated["status"],
        "amount_minor": stated["amount"],
        "currency": stated["currency"].lower(),
        "reason": stated.get("reason"),
        "metadata": kept_metadata(stated.get("metadata")),
    }


CHARGES = Resource(
    "charges",
    "raw.stripe_charges",
    "charge_id",
    charge_row,
    "status = 'pending' or (status = 'succeeded' and not captured and not refunded)",
)
REFUNDS = Resource(
    "refunds",
    "raw.stripe_refunds",
    "refund_id",
    refund_row,
    "status in ('pending', 'requires_action')",
    expand=("balance_transaction",),
)
DISPUTES = Resource(
    "disputes",
    "raw.stripe_disputes",
    "dispute_id",
    dispute_row,
    # An inquiry may yet become a dispute under the same id.
    "status in ('needs_response', 'under_review', "
    "'warning_needs_response', 'warning_under_review')",
)


def land(draft: Draft, settings: Settings, clock: Clock) -> None:
    """Reads what is new and what was not final. Does nothing without a key.

    Raises SettingsError when Stripe refuses the key, StoreError when it can't be reached; each a
    sentence.
    """
    if settings.stripe.api_key is None:
        return
    Reading(draft, settings, clock).run()


def trouble(settings: Settings) -> str | None:
    """Why charges, refunds or disputes can't be read with this key, as a sentence; None when they
    can.
    """
    import stripe

    assert settings.stripe.api_key is not None
    client = stripe.StripeClient(
        settings.stripe.api_key.get_secret_value(),
        stripe_version=VERSION,
        base_addresses={"api": settings.stripe.api_base.rstrip("/")},
        max_network_retries=0,
    )
    for name in ("charges", "refunds", "disputes"):
        try:
            getattr(client.v1, name).list({"limit": 1})
        except stripe.StripeError as error:
            return f"{name} can't be read: {_first_line(error)}"
    return None


class Reading:
    """One night's reading of a Stripe account."""

    def __init__(self, draft: Draft, settings: Settings, clock: Clock) -> None:
        import stripe  # here, because the SDK takes a while and a night without a key needs none

        assert settings.stripe.api_key is not None
        # At debug level the SDK logs whole answers; names and cards stay out of every log.
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self.stripe = stripe
        self.draft = draft
        self.clock = clock
        self.api_base = settings.stripe.api_base
        self.livemode = settings.stripe.livemode
        self.client = stripe.StripeClient(
            settings.stripe.api_key.get_secret_value(),
            stripe_version=VERSION,
            base_addresses={"api": settings.stripe.api_base.rstrip("/")},
            max_network_retries=2,
        )
        self.services: dict[str, Any] = {
            "charges": self.client.v1.charges,
            "refunds": self.client.v1.refunds,
            "disputes": self.client.v1.disputes,
        }

    def run(self) -> None:
        seen, _ = self._read(CHARGES)
        behind: set[str] = set()
        for resource in (REFUNDS, DISPUTES):
            _, changed = self._read(resource)
            behind |= {row["charge_id"] for row in changed if row["charge_id"]}
        # A refund or dispute has changed its charge, whose `created` may lie long ago.
        if behind - seen:
            self._keep(CHARGES, self._by_id(CHARGES, sorted(behind - seen)))

    def _read(self, resource: Resource) -> tuple[set[str], list[dict[str, Any]]]:
        """Lists what is new of a resource and reads again what was not final; (ids read, rows that
        changed).
        """
        waiting = self._not_final(resource)
        seen: set[str] = set()
        changed: list[dict[str, Any]] = []
        batch: list[dict[str, Any]] = []
        for stated in self._listed(resource, self._since(resource)):
            seen.add(stated["id"])
            batch.append(resource.row(stated, self.livemode))
            if len(batch) >= BATCH:
                changed += self._keep(resource, batch)
                batch = []
        again = [name for name in waiting if name not in seen]
        batch += self._by_id(resource, again)
        seen.update(again)
        changed += self._keep(resource, batch)
        log.info("Stripe %s: %d read, %d new or changed", resource.name, len(seen), len(changed))
        return seen, changed

    def _keep(self, resource: Resource, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return append_changed(self.draft, resource.table, rows, self.clock.arrived_at)

    # ---- what raw knows ---------------------------------------------------------------------

    def _since(self, resource: Resource) -> datetime | None:
        """Where to begin to list: everything before has been listed by an earlier night. None: from
        the beginning.
        """
        [newest] = self.draft.query(
            f"select max(created_at) as at from {resource.table} "
            "where origin = 'api' and livemode = $livemode",
            livemode=self.livemode,
        )["at"].to_pylist()
        return newest - OVERLAP if newest is not None else None

    def _not_final(self, resource: Resource) -> list[str]:
        newest = (
            f"select * from {resource.table} where origin = 'api' and livemode = $livemode "
            "qualify row_number() over "
            f"(partition by {resource.key} order by arrived_at desc, record_sha256) = 1"
        )
        found = self.draft.query(
            f"select {resource.key} as id from ({newest}) where {resource.not_final} order by 1",
            livemode=self.livemode,
        )
        names: list[str] = found["id"].to_pylist()
        return names

    # ---- what Stripe says -------------------------------------------------------------------

    def _listed(self, resource: Resource, since: datetime | None) -> Iterator[dict[str, Any]]:
        """Every object created at or after `since`, newest first, page by page."""
        service = self.services[resource.name]
        ask: dict[str, Any] = {"limit": PAGE}
        if since is not None:
            ask["created"] = {"gte": int(since.replace(tzinfo=UTC).timestamp())}
        if resource.expand:
            ask["expand"] = [f"data.{name}" for name in resource.expand]
        count = 0
        while True:
            page = self._patiently(lambda: service.list(dict(ask)), resource.name)
            for item in page.data:
                yield item.to_dict()
            count += len(page.data)
            if not page.has_more or not page.data:
                return
            if count % (PAGE * 10) == 0:
                log.info("Stripe %s: %d so far", resource.name, count)
            ask["starting_after"] = page.data[-1].id

    def _by_id(self, resource: Resource, names: list[str]) -> list[dict[str, Any]]:
        """Objects read one by one; an id that Stripe does not know any more is said and left as it
        was.
        """
        service = self.services[resource.name]
        ask = {"expand": list(resource.expand)} if resource.expand else {}
        rows = []
        for name in names:
            try:
                item = self._patiently(partial(service.retrieve, name, ask), resource.name)
            except self.stripe.InvalidRequestError as error:
                if error.http_status != 404:
                    raise StoreError(
                        f"Stripe refused to show {name}: {_first_line(error)}."
                    ) from None
                self.draft.remark(f"Stripe knows no {name} any more; it stays as it was last read.")
                continue
            rows.append(resource.row(item.to_dict(), self.livemode))
        return rows

    def _patiently(self, call: Callable[[], Any], what: str) -> Any:
        """Asks again when Stripe is busy or out of reach: longer each time, with jitter, or for as
        long as it says.

        The SDK tries 5xx and broken connections again by itself, but not a plain 429
        (facts/stripe.md, measured).
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_pass),
            wait=_wait,
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            before_sleep=_say,
            reraise=True,
        )
        try:
            return retrying(call)
        except self.stripe.AuthenticationError as error:
            raise SettingsError(
                f"Stripe refused the key ({_first_line(error)}): "
                "set METERHOUSE_STRIPE_API_KEY to a restricted key "
                "(rk_…) of this account that may read charges, refunds and disputes."
            ) from None
        except self.stripe.PermissionError as error:
            raise SettingsError(
                f"The Stripe key may not read {what} ({_first_line(error)}): "
                "give it read access to charges, "
                "refunds and disputes."
            ) from None
        except (
            self.stripe.RateLimitError,
            self.stripe.APIConnectionError,
            self.stripe.APIError,
        ) as error:
            raise StoreError(
                f"Stripe at {self.api_base} did not answer for {what} after {ATTEMPTS} attempts "
                f"({_first_line(error)}): nothing was published, run the night again later."
            ) from None

    def _may_pass(self, error: BaseException) -> bool:
        if isinstance(error, self.stripe.RateLimitError | self.stripe.APIConnectionError):
            return True
        return isinstance(error, self.stripe.APIError)


def _first_line(error: "stripe.StripeError") -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds before the next attempt: Retry-After where Stripe gives one, else 0.5, 1, 2 … with
    full jitter.
    """
    error = state.outcome.exception() if state.outcome else None
    headers = getattr(error, "headers", None) or {}
    stated = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    if str(stated).replace(".", "", 1).isdigit():
        return min(float(stated), LONGEST_WAIT_SECONDS)
    longest = min(FIRST_WAIT_SECONDS * 2.0 ** (state.attempt_number - 1), LONGEST_WAIT_SECONDS)
    return random.uniform(longest / 2, longest)


def _say(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    seconds = state.next_action.sleep if state.next_action else 0.0
    log.warning(
        "Stripe is busy or out of reach (%s): asking again in %.1f s", type(error).__name__, seconds
    )
