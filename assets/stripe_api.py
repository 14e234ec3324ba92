"""Stripe through its API: every object of its money side becomes a row of raw.stripe_*, a new one
whenever it has changed.

Where a night begins to list is a fact of raw itself: the newest `created` that raw holds of a
resource, less an overlap; the first night lists everything. Lists come newest first, in windows of
`created`; a window is closed, and written, when two passes over it found the same. So a page that
shifted, or an object that changed, came late or went while it was listed, is never missed.

What lies before is closed, but for what is not final: that is read again by id, however old, and so
is what a new object names: the source of a balance transaction, the charge of a refund or dispute,
the PaymentIntent of a charge, the invoice of a payment or credit note (facts/reconciliation.md,
section 2). Nothing else is remembered, so a repeated night appends nothing. A night takes
everything that has arrived (contract, "The clock").
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import tenacity

from assets import stripe_rows
from assets.stripe_objects import TABLES as STRIPE_TABLES
from assets.stripe_objects import append_changed, kept_metadata
from assets.stripe_resume import Unfinished
from assets.stripe_rows import (
    BALANCE_TRANSACTIONS,
    CHARGES,
    CREDIT_NOTES,
    CUSTOMERS,
    INVOICES,
    PAYMENT_INTENTS,
    PAYOUTS,
    RESOURCES,
    Resource,
    Row,
)
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
WINDOW = 10_000  # objects listed before they are listed again, and written
PASSES = 20  # over one window, before Stripe is said not to hold still
ATTEMPTS = 8
ANSWER_SECONDS = 80.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0

EVENTS = {"charge.updated": CHARGES, "invoice.updated": INVOICES}
# The newest version of each object of a resource.
NEWEST = (
    "select * from {table} where origin = 'api' and livemode = $livemode "
    "qualify row_number() over (partition by {key} order by arrived_at desc, record_sha256) = 1"
)
READABLE = ", ".join(one.name.replace("_", " ") for one in RESOURCES[:-1]) + " and customers"


class Item(NamedTuple):
    """What is kept of one object, and of the customer that came with it."""

    row: Row
    contact: Row | None


class ListMoved(Exception):
    """The object that a page was to begin after is gone."""


def land(draft: Draft, settings: Settings, clock: Clock) -> None:
    """Reads what is new and what was not final. Does nothing without a key.

    Raises SettingsError when Stripe refuses the key, StoreError when it can't be reached; each a
    sentence.
    """
    if settings.stripe.api_key is None:
        return
    Reading(draft, settings, clock).run()


def trouble(settings: Settings) -> str | None:
    """Which resources can't be read with this key, as a sentence; None when all can."""
    import stripe

    client = _client(settings, retries=0)
    refused = []
    for resource in RESOURCES:
        try:
            getattr(client.v1, resource.name).list({"limit": 1})
        except stripe.PermissionError:
            refused.append(resource.name.replace("_", " "))
        except stripe.StripeError as error:
            return f"{resource.name.replace('_', ' ')} can't be read: {_first_line(error)}"
    if refused:
        return f"the key may not read {', '.join(refused)}: give it read access to them"
    return None


def _client(settings: Settings, retries: int) -> "stripe.StripeClient":
    import stripe  # here, because the SDK takes a while and a night without a key needs none

    assert settings.stripe.api_key is not None
    return stripe.StripeClient(
        settings.stripe.api_key.get_secret_value(),
        stripe_version=VERSION,
        base_addresses={"api": settings.stripe.api_base.rstrip("/")},
        max_network_retries=retries,
        http_client=stripe.RequestsClient(timeout=ANSWER_SECONDS),
    )


class Reading:
    """One night's reading of a Stripe account."""

    def __init__(self, draft: Draft, settings: Settings, clock: Clock) -> None:
        import stripe

        # At debug level the SDK logs whole answers; names and cards stay out of every log.
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self.stripe = stripe
        self.draft = draft
        self.arrived_at = clock.arrived_at
        self.api_base = settings.stripe.api_base
        self.livemode = settings.stripe.livemode
        self.client = _client(settings, retries=2)
        self.unfinished = Unfinished(draft, self.livemode, self.api_base)
        self.seen: dict[str, set[str]] = {one.name: set() for one in RESOURCES}
        self.changed: dict[str, list[Row]] = {one.name: [] for one in RESOURCES}
        self.sources: set[str] = set()  # what new balance transactions name
        self.lists_are_over = False
        self.paid_out_count = 0  # of the changed payouts, those whose transactions were listed
        self.reopened: set[str] = set()  # changed invoices whose credit notes may have been voided

    def run(self) -> None:
        """Lists each resource, then reads by id what they name.

        An object is listed after whatever may tell that it has changed: so one that was listed in
        this night needs no second look.
        """
        customers: set[str] = set()
        for table, rows in self.unfinished.found():
            append_changed(self.draft, table, rows, self._moment())
            customers |= {row["customer_id"] for row in rows if row.get("customer_id")}
        since, self.waiting = self._since(), self._waiting()
        self.knows_transactions = since[BALANCE_TRANSACTIONS.name] is not None
        self.knows_invoices = since[INVOICES.name] is not None
        for resource in RESOURCES:
            self._read(resource, since[resource.name])
        self._read_behind()
        # They came with what the interrupted night has read, and it kept nothing of them.
        self._again(CUSTOMERS, customers)
        self._look_at_events()
        if not any(self.changed.values()):
            self.unfinished.forget()

    def _read(self, resource: Resource, since: int | None) -> None:
        """Lists what is new of a resource and reads again what was not final."""
        for window in self._listed(resource, since):
            self._keep(resource, window)
        for items in self._rest_of(resource):
            self._keep(resource, items)
        self._again(resource, self.waiting[resource.name])
        log.info(
            "Stripe %s: %d read, %d new or changed",
            resource.name.replace("_", " "),
            len(self.seen[resource.name]),
            len(self.changed[resource.name]),
        )
        if resource is PAYOUTS:
            self._read_payouts()

    def _read_payouts(self) -> None:
        """What went out with each automatic payout that is new or has changed; for others Stripe
        has no list.
        """
        rows = self.changed[PAYOUTS.name]
        changed = [row for row in rows[self.paid_out_count :] if row["automatic"]]
        self.paid_out_count = len(rows)
        found: dict[str, Item] = {}
        for row in sorted(changed, key=lambda row: (row["created_at"], row["payout_id"])):
            name = row["payout_id"]
            for window in self._listed(BALANCE_TRANSACTIONS, None, {"payout": name}):
                for item in window.values():
                    item.row["payout_id"] = name
                found |= window
                if len(found) >= WINDOW:
                    self._keep(BALANCE_TRANSACTIONS, found, is_whole=False)
                    found = {}
        self._keep(BALANCE_TRANSACTIONS, found, is_whole=False)

    def _read_behind(self) -> None:
        """What the night's news name and what was not listed itself, by id.

        What is read here is newer than every list of the night: so what it names in turn is read
        again even where it was listed.
        """
        self.lists_are_over = True
        self.listed_count = {name: len(rows) for name, rows in self.changed.items()}
        # What went out with a payout may be news too, and name a payout.
        while payouts := self._sources_of(PAYOUTS) - self.seen[PAYOUTS.name]:
            self._again(PAYOUTS, payouts)
            self._read_payouts()
            self.seen[PAYOUTS.name] |= payouts  # those that are gone as well
        for resource in (stripe_rows.REFUNDS, stripe_rows.DISPUTES):
            self._again(resource, self._sources_of(resource))
        charges = self._named("charge_id", stripe_rows.REFUNDS, stripe_rows.DISPUTES)
        self._again(CHARGES, charges | self._sources_of(CHARGES))
        self._again(PAYMENT_INTENTS, self._named("payment_intent_id", CHARGES))
        self._again(
            INVOICES,
            self._named("stripe_invoice_id", CHARGES, CREDIT_NOTES, stripe_rows.INVOICE_PAYMENTS),
        )
        # Voiding a credit note changes its invoice; when it was listed, it may have stood.
        notes = self._credit_notes(self.reopened)
        self._keep(CREDIT_NOTES, self._by_id(CREDIT_NOTES, notes))

    def _sources_of(self, resource: Resource) -> set[str]:
        """What new balance transactions name of a resource."""
        return {
            source
            for source in self.sources
            if stripe_rows.BY_PREFIX.get(source.partition("_")[0]) is resource
        }

    def _look_at_events(self) -> None:
        """What a person has mended on an object that is final leaves no trace but an event: where
        one tells of other metadata than raw has, the object itself is read again.

        A hint, no more: events live thirty days, and a key need not be able to read them.
        """
        if self.draft.published is None:
            return  # all was listed tonight
        since = self.draft.published.published_at.replace(tzinfo=UTC) - OVERLAP
        ask: dict[str, Any] = {
            "limit": PAGE,
            "types": sorted(EVENTS),
            "created": {"gte": int(since.timestamp())},
        }
        told: dict[str, tuple[Resource, str]] = {}
        try:
            while True:
                page = self._ask("events", ask)
                for event in page["data"]:  # newest first
                    thing = event["data"]["object"]
                    stated = kept_metadata(thing.get("metadata"))
                    told.setdefault(thing["id"], (EVENTS[event["type"]], stated))
                if not page["has_more"] or not page["data"]:
                    break
                ask["starting_after"] = page["data"][-1]["id"]
        except SettingsError as error:
            log.info("Stripe events are not read: %s", error)
            return
        except self.stripe.InvalidRequestError as error:
            log.info("Stripe events are not read any further: %s", _first_line(error))
        for resource in set(EVENTS.values()):
            stated_of = {name: said for name, (one, said) in told.items() if one is resource}
            held = self._known(resource, stated_of, "metadata")
            self._again(
                resource,
                [name for name, said in stated_of.items() if held.get(name, said) != said],
            )

    def _named(self, column: str, *resources: Resource) -> set[str]:
        """The ids that changed objects name. Those named by what was read after the lists count as
        not seen.
        """
        names: set[str] = set()
        for one in resources:
            count = self.listed_count[one.name]
            rows = self.changed[one.name]
            names |= {row[column] for row in rows[:count] if row.get(column)}
            late = {row[column] for row in rows[count:] if row.get(column)}
            for seen in self.seen.values():
                seen -= late
            names |= late
        return names

    def _again(self, resource: Resource, names: Iterable[str]) -> None:
        """Reads objects by id that the night has not read yet."""
        missing = sorted(set(names) - self.seen[resource.name])
        self._keep(resource, self._by_id(resource, missing))

    def _keep(
        self, resource: Resource, items: Mapping[str, Item], *, is_whole: bool = True
    ) -> None:
        """Appends what has changed. `is_whole`: these objects were read for their own sake."""
        if not items:
            return
        rows = [item.row for item in items.values()]
        if resource is BALANCE_TRANSACTIONS:
            self._know_transactions(rows)
        changed = append_changed(self.draft, resource.table, rows, self._moment())
        contacts = [item.contact for item in items.values() if item.contact]
        append_changed(self.draft, CUSTOMERS.table, contacts, self._moment())
        if is_whole:
            self.seen[resource.name].update(items)
            self.changed[resource.name] += changed
        if resource is INVOICES:
            self.reopened |= {
                row["stripe_invoice_id"]
                for row in changed
                if self.knows_invoices or row["status"] == "open"
            }

    def _moment(self) -> datetime:
        """When what is written now arrived: each time a microsecond later, so that of two readings
        of one object in a night the later one stands.
        """
        self.arrived_at += timedelta(microseconds=1)
        return self.arrived_at

    # ---- what raw knows ---------------------------------------------------------------------

    def _since(self) -> dict[str, int | None]:
        """Where to begin to list each resource, in epoch seconds: everything before has been listed
        by an earlier night. None: from the beginning.
        """
        rows = self._of_each(
            "select '{name}' as name, max(created_at) as at from {table} "
            "where origin = 'api' and livemode = $livemode"
        )
        newest = {row["name"]: row["at"] for row in rows if row["at"] is not None}
        return {
            one.name: _seconds(newest[one.name] - OVERLAP) if one.name in newest else None
            for one in RESOURCES
        }

    def _waiting(self) -> dict[str, list[str]]:
        """The ids of what is not final, by resource."""
        rows = self._of_each(
            f"select '{{name}}' as name, {{key}} as id from ({NEWEST}) where {{not_final}}",
            [one for one in RESOURCES if one.not_final],
        )
        waiting: dict[str, list[str]] = {one.name: [] for one in RESOURCES}
        for row in rows:
            waiting[row["name"]].append(row["id"])
        return waiting

    def _of_each(self, select: str, resources: Sequence[Resource] = RESOURCES) -> list[Row]:
        """The rows of a select on each resource of which raw holds anything."""
        selects = [
            select.format(**vars(one)) for one in resources if self.draft.partitions(one.table)
        ]
        if not selects:
            return []
        rows: list[Row] = self.draft.query(
            " union all ".join(selects), livemode=self.livemode
        ).to_pylist()
        return rows

    def _newest(self, resource: Resource, columns: str, condition: str, **values: Any) -> list[Row]:
        """Of the newest version of each object, those for which a condition holds."""
        if not self.draft.partitions(resource.table):
            return []
        newest = NEWEST.format(**vars(resource))
        rows: list[Row] = self.draft.query(
            f"select {columns} from ({newest}) where {condition} order by {resource.key}",
            livemode=self.livemode,
            **values,
        ).to_pylist()
        return rows

    def _credit_notes(self, invoices: set[str]) -> list[str]:
        """The credit notes of some invoices that may still be voided."""
        if not invoices:
            return []
        found = self._newest(
            CREDIT_NOTES,
            "credit_note_id as id",
            "status <> 'void' and stripe_invoice_id in (select unnest($invoices::varchar[]))",
            invoices=sorted(invoices),
        )
        return [row["id"] for row in found]

    def _known(
        self, resource: Resource, names: Iterable[str], column: str = "null"
    ) -> dict[str, Any]:
        """Those of some ids that raw holds, each with a column of its newest version."""
        found = self._newest(
            resource,
            f"{resource.key} as id, {column} as held",
            f"{resource.key} in (select unnest($ids::varchar[]))",
            ids=sorted(names),
        )
        return {row["id"]: row["held"] for row in found}

    def _know_transactions(self, rows: list[Row]) -> None:
        """Balance transactions do not say their payout: what is known of it stays. Of those that
        are new, the source is remembered.
        """
        names = [row["balance_transaction_id"] for row in rows]
        known = self._known(BALANCE_TRANSACTIONS, names, "payout_id")
        for row in rows:
            name = row["balance_transaction_id"]
            if row["payout_id"] is None:
                row["payout_id"] = known.get(name)
            # The first time, whatever they name is listed by itself, or was by earlier nights.
            if self.knows_transactions and name not in known and row["source_id"]:
                self.sources.add(row["source_id"])
                if self.lists_are_over:
                    for seen in self.seen.values():
                        seen.discard(row["source_id"])

    # ---- what Stripe says -------------------------------------------------------------------

    def _listed(
        self, resource: Resource, since: int | None, filters: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Item]]:
        """Every object created at or after `since`, newest first, window by window; each window as
        two passes agreed on it.

        An object created after the first pass began is the next night's.
        """
        until: int | None = None
        while True:
            window, began = self._closed(resource, since, until, filters or {})
            is_new = self.unfinished.left(resource) is None
            if began is not None and is_new and not filters:
                self.unfinished.add(resource, since, began, [one.row for one in window.values()])
            yield window
            if began is None:
                return
            log.info(
                "Stripe %s: %d so far, back to %s",
                resource.name.replace("_", " "),
                len(self.seen[resource.name]),
                datetime.fromtimestamp(began, UTC).date(),
            )
            until = began - 1

    def _rest_of(self, resource: Resource) -> Iterator[dict[str, Item]]:
        """What an interrupted night had not come to yet."""
        left = self.unfinished.left(resource)
        while left is not None:
            since, until = left
            window, began = self._closed(resource, since, until, {})
            self.unfinished.add(resource, since, began, [one.row for one in window.values()])
            yield window
            left = None if began is None else (since, began - 1)

    def _closed(
        self, resource: Resource, since: int | None, until: int | None, filters: Mapping[str, str]
    ) -> tuple[dict[str, Item], int | None]:
        """The objects of one window, and where it began; None when nothing lies before it."""
        found: dict[str, Item] | None = None
        began = since
        is_cut = False
        for _ in range(PASSES):
            longest = WINDOW if found is None else None
            try:
                again, cut_at = self._pass(resource, began, until, filters, longest)
            except ListMoved:
                continue
            if cut_at is not None:
                began, is_cut = cut_at, True
            if until is None and again:
                until = max(_seconds(item.row["created_at"]) for item in again.values())
            if again == found:
                return found, began if is_cut else None
            found = again
        raise StoreError(
            f"Stripe's list of {resource.name.replace('_', ' ')} changed each of the {PASSES} "
            "times it was read: nothing was published, run the night again later."
        )

    def _pass(
        self,
        resource: Resource,
        since: int | None,
        until: int | None,
        filters: Mapping[str, str],
        longest: int | None,
    ) -> tuple[dict[str, Item], int | None]:
        """One pass over a window, and the second at which it was cut because it became too long.

        Raises ListMoved when the object that a page begins after is gone.
        """
        found: dict[str, Item] = {}
        last = None
        for stated in self._objects(resource, since, until, filters):
            if longest is not None and len(found) >= longest and stated["created"] != last:
                return found, last
            last = stated["created"]
            found[stated["id"]] = self._item(resource, stated)
        return found, None

    def _objects(
        self,
        resource: Resource,
        since: int | None,
        until: int | None,
        filters: Mapping[str, str],
    ) -> Iterator[dict[str, Any]]:
        """The objects of a window, newest first, page by page."""
        ask: dict[str, Any] = {"limit": PAGE, **filters}
        bounds = {"gte": since, "lte": until}
        if window := {name: bound for name, bound in bounds.items() if bound is not None}:
            ask["created"] = window
        if resource.expand:
            ask["expand"] = [f"data.{name}" for name in resource.expand]
        while True:
            try:
                page = self._ask(resource.name, ask)
            except self.stripe.InvalidRequestError as error:
                if error.code == "resource_missing" and "starting_after" in ask:
                    raise ListMoved from None
                raise StoreError(
                    f"Stripe refused to list {resource.name}: {_first_line(error)}."
                ) from None
            yield from page["data"]
            if not page["has_more"] or not page["data"]:
                return
            ask["starting_after"] = page["data"][-1]["id"]

    def _ask(self, path: str, ask: Mapping[str, Any]) -> dict[str, Any]:
        """What Stripe answers, as plain values: the SDK's objects took eight times as long (162
        against 19 ms for a page of 100 charges).
        """
        call = partial(self.client.raw_request, "get", f"/v1/{path}", **ask)
        answer: dict[str, Any] = self._patiently(call, path.partition("/")[0]).data
        return answer

    def _item(self, resource: Resource, stated: dict[str, Any]) -> Item:
        lines = stated.get("lines")
        if resource is INVOICES and lines and lines["has_more"]:
            stated["lines"] = {"data": self._lines(stated["id"])}
        customer = stated.get("customer")
        contact = None
        if isinstance(customer, Mapping) and not customer.get("deleted"):
            contact = stripe_rows.customer_row(customer, self.livemode)
        return Item(resource.row(stated, self.livemode), contact)

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """All lines of an invoice; with the invoice itself only the first come.

        Raises ListMoved when the invoice, or the line that a page begins after, is gone meanwhile:
        a draft may be deleted or changed between its own answer and this one.
        """
        ask: dict[str, Any] = {"limit": PAGE}
        lines: list[dict[str, Any]] = []
        while True:
            try:
                page = self._ask(f"invoices/{name}/lines", ask)
            except self.stripe.InvalidRequestError as error:
                if error.http_status == 404 or error.code == "resource_missing":
                    raise ListMoved from None
                raise StoreError(
                    f"Stripe refused to show the lines of {name}: {_first_line(error)}."
                ) from None
            lines += page["data"]
            if not page["has_more"] or not page["data"]:
                return lines
            ask["starting_after"] = page["data"][-1]["id"]

    def _by_id(self, resource: Resource, names: list[str]) -> dict[str, Item]:
        """Objects read one by one; an id that Stripe does not know any more is said and left as it
        was.
        """
        ask = {"expand": list(resource.expand)} if resource.expand else {}
        found: dict[str, Item] = {}
        for name in names:
            try:
                if item := self._one(resource, name, ask):
                    found[name] = item
            except self.stripe.InvalidRequestError as error:
                if error.http_status != 404:
                    raise StoreError(
                        f"Stripe refused to show {name}: {_first_line(error)}."
                    ) from None
                if (gone := self._deleted(resource, name)) is not None:
                    found[name] = Item(gone, None)
                    continue
                self.draft.remark(f"Stripe knows no {name} any more; it stays as it was last read.")
        return found

    def _one(self, resource: Resource, name: str, ask: Mapping[str, Any]) -> Item | None:
        """One object by its id; again where its lines changed while they were read. None of a
        customer who was deleted: Stripe states no more than that.
        """
        for _ in range(PASSES):
            try:
                stated = self._ask(f"{resource.name}/{name}", ask)
                return None if stated.get("deleted") else self._item(resource, stated)
            except ListMoved:
                continue
        raise StoreError(
            f"Stripe's lines of {name} changed each of the {PASSES} times they were read: nothing "
            "was published, run the night again later."
        )

    def _deleted(self, resource: Resource, name: str) -> Row | None:
        """A draft that is gone was deleted, and is final: only drafts can be."""
        if resource is not INVOICES:
            return None
        known = self._newest(
            resource, "*", f"{resource.key} = $name and status = 'draft'", name=name
        )
        return known[0] | {"status": "deleted"} if known else None

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
                f"(rk_…) of this account that may read {READABLE}."
            ) from None
        except self.stripe.PermissionError as error:
            raise SettingsError(
                f"The Stripe key may not read {what.replace('_', ' ')} ({_first_line(error)}): "
                f"give it read access to {READABLE}."
            ) from None
        except (
            self.stripe.RateLimitError,
            self.stripe.APIConnectionError,
            self.stripe.APIError,
        ) as error:
            raise StoreError(
                f"Stripe at {self.api_base} did not answer for {what.replace('_', ' ')} after "
                f"{ATTEMPTS} attempts ({_first_line(error)}): "
                "nothing was published, run the night again later."
            ) from None

    def _may_pass(self, error: BaseException) -> bool:
        if isinstance(error, self.stripe.RateLimitError | self.stripe.APIConnectionError):
            return True
        return isinstance(error, self.stripe.APIError)


def _seconds(at: datetime) -> int:
    """A UTC time without a zone in epoch seconds."""
    return int(at.replace(tzinfo=UTC).timestamp())


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
