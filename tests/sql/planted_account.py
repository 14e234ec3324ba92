"""A generated gateway and Stripe account in which every status of facts/reconciliation.md is
planted, each by several causes, in Stripe's shapes before and since basil.

A case states the status and the rung that its items must get; nothing here computes one. Ids are
numbered, so that cases never touch each other. `plant(seed, count)` goes on until it has `count`
items, every case at least once.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciliation_worlds import World, days_ago, metadata

Truth = dict[str, tuple[str, str | None]]  # item → (status, rung)
CONFLICT, FIRST = "metadata_conflict", "charge_metadata"


@dataclass
class Plot:
    """Where one case is planted: names of its own, a price, a currency, and the shape of Stripe's
    invoices.
    """

    world: World
    number: int
    price: int  # even, at least 1000
    currency: str
    is_basil: bool
    truth: Truth = field(default_factory=dict)

    def id(self, kind: str, which: object = "") -> str:
        return f"{kind}_{self.number}" + (f"_{which}" if which != "" else "")

    def expect(self, item: str, status: str, rung: str | None = None) -> None:
        self.truth[item] = (status, rung)

    def invoice(
        self, status: str, rung: str | None, *, which: object = "", total: int | None = None,
        gateway: str = "paid", **stated: Any,
    ) -> str:  # fmt: skip
        """A gateway invoice, and what must become of it."""
        name = self.id("inv", which)
        self.world.invoice(
            name,
            self.price if total is None else total,
            currency=self.currency,
            status=gateway,
            **stated,
        )
        self.expect(name, status, rung)
        return name

    def charge(self, which: object = "", amount: int | None = None, **stated: Any) -> str:
        """A charge whose metadata names the case's invoice, unless stated otherwise."""
        name = self.id("ch", which)
        values = {"names": self.id("inv"), "currency": self.currency} | stated
        self.world.charge(name, self.price if amount is None else amount, **values)
        return name

    def silent(self, which: object = "", amount: int | None = None, **stated: Any) -> str:
        """A charge without metadata, with a PaymentIntent."""
        values = {"names": None, "workspace": None, "payment_intent_id": self.id("pi", which)}
        return self.charge(which, amount, **values | stated)

    def refund(self, which: object, charge: str, amount: int, **stated: Any) -> None:
        self.world.refund(self.id("re", which), charge, amount, currency=self.currency, **stated)

    def dispute(self, which: object, charge: str, amount: int, status: str, **more: Any) -> None:
        self.world.dispute(
            self.id("dp", which), charge, amount, status, currency=self.currency, **more
        )

    def bill(
        self, total: int | None = None, *, pays: str = "", which: object = "", **stated: Any
    ) -> str:
        """A Stripe invoice, paid by the PaymentIntent of the charge `ch_<number><pays>`, in the
        plot's shape.
        """
        name = self.id("in", which)
        intent = self.id("pi", pays)
        old = {} if self.is_basil else {"payment_intent_id": intent, "paid_out_of_band": False}
        self.world.bill(
            name,
            self.price if total is None else total,
            **{"currency": self.currency} | old | stated,
        )
        if self.is_basil:
            self.world.paid(name, intent=intent, currency=self.currency)
        return name


Case = Callable[[Plot], None]
CASES: dict[str, Case] = {}


def case(plant: Case) -> Case:
    CASES[plant.__name__] = plant
    return plant


def variants(name: str, values: Mapping[str, tuple[Any, ...]]) -> Callable[[Any], Any]:
    """One case for each line of values, which the function takes after the plot."""

    def register(plant: Callable[..., None]) -> Callable[..., None]:
        for key, line in values.items():
            CASES[f"{name}: {key}"] = lambda plot, line=line: plant(plot, *line)  # type: ignore[misc]
        return plant

    return register


# ---- who is meant ---------------------------------------------------------------------------


@case
def charge_metadata(plot: Plot) -> None:
    plot.invoice("matched", FIRST)
    plot.charge()


@case
def gateway_says_open(plot: Plot) -> None:
    plot.invoice("matched", FIRST, gateway="open")
    plot.charge()


@case
def agreeing_references(plot: Plot) -> None:
    plot.invoice("matched", FIRST, payment_intent_id=plot.id("pi"), stripe_invoice_id=plot.id("in"))
    plot.charge(payment_intent_id=plot.id("pi"))
    plot.bill(names=plot.id("inv"), workspace="ws_1")


@case
def no_workspace(plot: Plot) -> None:
    plot.invoice("matched_by_fallback", "charge_invoice_id")
    plot.charge(workspace=" ")


@case
def by_payment_intent(plot: Plot) -> None:
    name = plot.invoice("matched_by_fallback", "payment_intent_metadata")
    plot.silent()
    plot.world.intent(plot.id("pi"), f" {name}\n", "ws_1")


@case
def by_stripe_invoice(plot: Plot) -> None:
    name = plot.invoice("matched_by_fallback", "stripe_invoice_metadata", kind="subscription")
    plot.silent()
    plot.bill(names=name, workspace="ws_1")


@case
def by_subscription(plot: Plot) -> None:
    name = plot.invoice("matched_by_fallback", "subscription_metadata", kind="subscription")
    plot.silent()
    plot.bill(subscription=metadata(name, "ws_1"))


@case
def by_line(plot: Plot) -> None:
    name = plot.invoice("matched_by_fallback", "subscription_metadata", kind="subscription")
    plot.silent()
    plot.bill(lines=[metadata(name), metadata(None, "ws_1"), metadata(name)])


@case
def by_reference_to_the_intent(plot: Plot) -> None:
    plot.invoice("matched_by_fallback", "gateway_reference", payment_intent_id=plot.id("pi"))
    plot.silent()


@case
def by_reference_to_the_bill(plot: Plot) -> None:
    plot.invoice("matched_by_fallback", "gateway_reference", stripe_invoice_id=plot.id("in"))
    plot.silent()
    plot.bill()


@case
def by_report(plot: Plot) -> None:
    name = plot.invoice("matched_by_fallback", "report_invoice_id")
    charge = plot.silent()
    plot.world.bill(plot.id("in"), plot.price, names=name, currency=plot.currency)
    plot.world.report(charge, plot.id("in"))


@case
def charge_invoice_before_basil(plot: Plot) -> None:
    name = plot.invoice("matched_by_fallback", "stripe_invoice_metadata")
    plot.silent(stripe_invoice_id=plot.id("in"))
    plot.world.bill(plot.id("in"), plot.price, names=name, currency=plot.currency)


@case
def intent_invoice_before_basil(plot: Plot) -> None:
    name = plot.invoice("matched_by_fallback", "stripe_invoice_metadata")
    plot.silent()
    plot.world.intent(plot.id("pi"), stripe_invoice_id=plot.id("in"))
    plot.world.bill(plot.id("in"), plot.price, names=name, currency=plot.currency)


@case
def invoice_charge_before_basil(plot: Plot) -> None:
    name = plot.invoice("matched_by_fallback", "stripe_invoice_metadata")
    charge = plot.silent(payment_intent_id=None)
    plot.world.bill(plot.id("in"), plot.price, names=name, currency=plot.currency, charge_id=charge)


@case
def invoice_payment_by_charge(plot: Plot) -> None:
    name = plot.invoice("matched_by_fallback", "stripe_invoice_metadata")
    charge = plot.silent(payment_intent_id=None)
    plot.world.bill(plot.id("in"), plot.price, names=name, currency=plot.currency)
    plot.world.paid(plot.id("in"), charge=charge)


@case
def two_parts_by_different_rungs(plot: Plot) -> None:
    name = plot.invoice("matched_by_fallback", "payment_intent_metadata")
    plot.charge("a", plot.price // 2)
    plot.silent("b", plot.price // 2)
    plot.world.intent(plot.id("pi", "b"), name, "ws_1")


@case
def two_parts(plot: Plot) -> None:
    plot.invoice("matched", FIRST)
    plot.charge("a", plot.price // 2)
    plot.charge("b", plot.price // 2)


@case
def canceled_invoice_payment(plot: Plot) -> None:
    """It links nothing: the charge is paid for nobody, the bill stays open."""
    name = plot.invoice("missing_in_stripe", "stripe_invoice_metadata", gateway="open")
    charge = plot.silent()
    plot.world.bill(plot.id("in"), plot.price, names=name, currency=plot.currency, status="open")
    plot.world.paid(plot.id("in"), intent=plot.id("pi"), status="canceled", amount=None)
    plot.expect(charge, "missing_in_gateway")


@case
def unknown_id_and_a_reference(plot: Plot) -> None:
    plot.invoice(CONFLICT, None, payment_intent_id=plot.id("pi"))
    plot.expect(plot.charge(names="inv_elsewhere", payment_intent_id=plot.id("pi")), CONFLICT)


@case
def one_intent_on_two_invoices(plot: Plot) -> None:
    for which in ("a", "b"):
        plot.invoice(CONFLICT, None, which=which, payment_intent_id=plot.id("pi"))
    plot.expect(plot.silent(), CONFLICT)


@case
def subscription_of_last_month(plot: Plot) -> None:
    name = plot.invoice(CONFLICT, None)
    last = plot.invoice(CONFLICT, FIRST, which="last", issued_at=days_ago(50))
    plot.charge("last", names=last, created_at=days_ago(50))
    plot.expect(plot.charge(payment_intent_id=plot.id("pi")), CONFLICT)
    plot.bill(names=name, subscription=metadata(last))


@case
def bill_without_charge_names_two(plot: Plot) -> None:
    one = plot.invoice(CONFLICT, None, which="a", gateway="open")
    plot.invoice(CONFLICT, None, which="b", gateway="open", stripe_invoice_id=plot.id("in"))
    plot.world.bill(plot.id("in"), plot.price, names=one, status="open", currency=plot.currency)


@case
def one_bill_paid_for_two(plot: Plot) -> None:
    """Two charges of one Stripe invoice belong to different invoices."""
    for which in ("a", "b"):
        plot.invoice(CONFLICT, FIRST, which=which)
        plot.charge(which, names=plot.id("inv", which), payment_intent_id=plot.id("pi", which))
    plot.is_basil = True
    plot.bill(plot.price * 2, pays="a")
    plot.world.paid(plot.id("in"), intent=plot.id("pi", "b"))


@case
def dead_charge_contradicts_nobody(plot: Plot) -> None:
    plot.invoice("matched", FIRST)
    plot.charge("a")
    dead = plot.charge("b", status="failed", captured=False, amount_captured_minor=0,
                       payment_intent_id=plot.id("pi"))  # fmt: skip
    plot.world.intent(plot.id("pi"), "inv_elsewhere")
    plot.expect(dead, "zero_amount")


@case
def draft_bill_is_ignored(plot: Plot) -> None:
    name = plot.invoice("matched", FIRST)
    plot.charge()
    plot.world.bill(plot.id("in"), 7, names=name, status="draft", currency="eur")


@variants(
    "other_workspace",
    {"charge": ("charge",), "intent": ("intent",), "bill": ("bill",), "subscription": ("sub",)},
)
def other_workspace(plot: Plot, where: str) -> None:
    name = plot.invoice("workspace_mismatch", FIRST)
    plot.charge(workspace="ws_9" if where == "charge" else "ws_1", payment_intent_id=plot.id("pi"))
    if where == "intent":
        plot.world.intent(plot.id("pi"), None, "ws_9")
    if where == "bill":
        plot.bill(names=name, workspace="ws_9")
    if where == "sub":
        plot.bill(subscription=metadata(None, "ws_9"))


@case
def tied_bill_of_another_workspace(plot: Plot) -> None:
    name = plot.invoice("workspace_mismatch", FIRST)
    plot.charge()
    plot.world.bill(plot.id("in"), plot.price, names=name, workspace="ws_9", currency=plot.currency)


@case
def charge_in_another_currency(plot: Plot) -> None:
    plot.invoice("currency_mismatch", FIRST)
    plot.charge(currency="chf")


@case
def bill_in_another_currency(plot: Plot) -> None:
    name = plot.invoice("currency_mismatch", FIRST)
    plot.charge()
    plot.world.bill(plot.id("in"), plot.price, names=name, currency="chf")


# ---- money at risk, and undone --------------------------------------------------------------


@variants("void", {word: (word,) for word in ("draft", "void", "uncollectible")})
def void_but_paid(plot: Plot, word: str) -> None:
    plot.invoice("void_but_paid", FIRST, gateway=word)
    plot.charge()


@case
def stripe_voided_its_bill(plot: Plot) -> None:
    name = plot.invoice("void_but_paid", FIRST)
    plot.charge()
    plot.world.bill(plot.id("in"), plot.price, names=name, status="void", currency=plot.currency)


@variants(
    "dispute",
    {
        "needs response": ("needs_response", "disputed_open", 0),
        "under review": ("under_review", "disputed_open", 0),
        "lost": ("lost", "dispute_lost", 0),
        "won": ("won", "dispute_won", 0),
        "inquiry": ("warning_closed", "matched", 0),
        "prevented": ("prevented", "matched", 0),
        "open over the rest": ("needs_response", "disputed_open", 400),
        "lost over the rest": ("lost", "dispute_lost", 400),
        "won over the rest": ("won", "refunded_partial", 400),
    },
)
def dispute(plot: Plot, outcome: str, status: str, refunded: int) -> None:
    plot.invoice(status, FIRST)
    charge = plot.charge()
    if refunded:
        plot.refund("", charge, refunded)
    plot.dispute("", charge, plot.price - refunded, outcome)


@case
def won_and_lost(plot: Plot) -> None:
    plot.invoice("dispute_lost", FIRST)
    charge = plot.charge()
    for outcome in ("won", "lost", "warning_closed"):
        plot.dispute(outcome, charge, plot.price, outcome)


@variants(
    "refund failed",
    {
        "nothing after": (None, None, "refund_failed"),
        "too little after": (399, 5, "refund_failed"),
        "made good before": (400, 12, "refund_failed"),
        "made good": (400, 5, "refunded_partial"),
        "canceled after": (0, 5, "refund_failed"),
    },
)
def refund_failed(plot: Plot, again: int | None, days: int | None, status: str) -> None:
    plot.invoice(status, FIRST)
    charge = plot.charge()
    plot.refund("a", charge, 400, status="failed")
    if again and days:
        plot.refund("b", charge, again, created_at=days_ago(days))
    elif days:
        plot.refund("b", charge, 400, created_at=days_ago(days), status="canceled")


@variants(
    "refunded in full",
    {
        "at once": ("paid", ("succeeded",)),
        "in two equal parts": ("paid", ("succeeded", "succeeded")),
        "not final": ("paid", ("pending", "requires_action")),
        "of a void invoice": ("void", ("succeeded",)),
    },
)
def refunded_full(plot: Plot, gateway: str, parts: tuple[str, ...]) -> None:
    plot.invoice("refunded_full", FIRST, gateway=gateway)
    charge = plot.charge()
    for number, status in enumerate(parts):
        plot.refund(number, charge, plot.price // len(parts), status=status)


@case
def refunded_and_failed_then_made_good_in_full(plot: Plot) -> None:
    plot.invoice("refunded_full", FIRST)
    charge = plot.charge()
    plot.refund("a", charge, plot.price, status="failed")
    plot.refund("b", charge, plot.price, created_at=days_ago(5))


@variants("refunded in part", {"once": (1,), "twice the same": (2,)})
def refunded_partial(plot: Plot, count: int) -> None:
    plot.invoice("refunded_partial", FIRST)
    charge = plot.charge()
    for number in range(count):
        plot.refund(number, charge, 300)


# ---- too little or too much -----------------------------------------------------------------


@case
def the_bills_differ(plot: Plot) -> None:
    name = plot.invoice("amount_mismatch", FIRST)
    plot.charge(payment_intent_id=plot.id("pi"))
    plot.bill(plot.price + 1, names=name)


@variants(
    "captured in part",
    {
        "all that is billed": (700, "paid", "matched"),
        "the gateway says paid": (1000, "paid", "amount_mismatch"),
        "the gateway says open": (1000, "open", "partially_paid"),
    },
)
def captured_in_part(plot: Plot, total: int, gateway: str, status: str) -> None:
    plot.invoice(status, FIRST, total=total, gateway=gateway)
    charge = plot.charge(amount=1000, amount_captured_minor=700, amount_refunded_minor=300)
    plot.refund("", charge, 300, reporting_category="partial_capture_reversal")


@variants(
    "charged twice",
    {
        "kept": (0, "duplicate_charge"),
        "one refunded in part": (300, "duplicate_charge"),
        "one refunded in full": (None, "matched"),
    },
)
def charged_twice(plot: Plot, refunded: int | None, status: str) -> None:
    plot.invoice(status, FIRST)
    plot.charge("a")
    second = plot.charge("b", created_at=days_ago(5))
    if refunded != 0:
        plot.refund("", second, plot.price if refunded is None else refunded)


@case
def paid_refunded_and_paid_again(plot: Plot) -> None:
    plot.invoice("matched", FIRST)
    plot.refund("", plot.charge("a"), plot.price)
    plot.charge("b", created_at=days_ago(4))


@variants("overpaid", {"one charge": (1500,), "two, both needed": (700, 600)})
def overpaid(plot: Plot, *amounts: int) -> None:
    plot.invoice("overpaid", FIRST, total=1000)
    for number, amount in enumerate(amounts):
        plot.charge(number, amount)


@variants("debit", {"fresh": (10, "in_flight"), "stale": (15, "missing_in_stripe")})
def debit(plot: Plot, age: int, status: str) -> None:
    plot.invoice(status, FIRST)
    plot.charge(status="pending", captured=False, amount_captured_minor=0, created_at=days_ago(age))


@case
def authorised(plot: Plot) -> None:
    plot.invoice("in_flight", FIRST)
    plot.charge(captured=False, amount_captured_minor=0, created_at=days_ago(2))


@case
def a_part_waits(plot: Plot) -> None:
    plot.invoice("in_flight", FIRST)
    plot.charge("a", plot.price // 2)
    plot.charge("b", plot.price // 2, status="pending", captured=False, amount_captured_minor=0,
                created_at=days_ago(14))  # fmt: skip


@variants("unpaid", {"young": (3, "in_flight"), "old": (4, "missing_in_stripe")})
def unpaid(plot: Plot, age: int, status: str) -> None:
    plot.invoice(status, None, issued_at=days_ago(age))


@case
def open_bill_nobody_paid(plot: Plot) -> None:
    name = plot.invoice(
        "missing_in_stripe", "stripe_invoice_metadata", gateway="open", issued_at=days_ago(10)
    )
    plot.world.bill(plot.id("in"), plot.price, names=name, status="open", currency=plot.currency)


@case
def only_declined(plot: Plot) -> None:
    plot.invoice("missing_in_stripe", FIRST, issued_at=days_ago(10))
    plot.charge(status="failed", captured=False, amount_captured_minor=0)


@case
def declined_then_paid(plot: Plot) -> None:
    plot.invoice("matched", FIRST)
    plot.charge("a", status="failed", captured=False, amount_captured_minor=0)
    plot.charge("b", created_at=days_ago(18))


@case
def only_a_test_charge(plot: Plot) -> None:
    plot.invoice("missing_in_stripe", None)
    plot.expect(plot.charge(livemode=False), "test_mode")


@case
def part_of_an_open_invoice(plot: Plot) -> None:
    plot.invoice("partially_paid", FIRST, gateway="open")
    plot.charge(amount=plot.price - 1)


@variants(
    "nothing owed",
    {"total 0": (0, "paid"), "draft": (1000, "draft"), "void": (1000, "void"),
     "uncollectible": (1000, "uncollectible")},
)  # fmt: skip
def nothing_owed(plot: Plot, total: int, gateway: str) -> None:
    plot.invoice("zero_amount", None, total=total, gateway=gateway)


@case
def wholly_credited_before_payment(plot: Plot) -> None:
    name = plot.invoice("zero_amount", "stripe_invoice_metadata")
    plot.world.bill(plot.id("in"), plot.price, names=name, currency=plot.currency,
                    pre_payment_credit_notes_minor=plot.price)  # fmt: skip


@variants("charged less", {"credit note": (True,), "balance": (False,)})
def charged_less(plot: Plot, is_note: bool) -> None:
    name = plot.invoice("matched", FIRST)
    plot.charge(amount=plot.price - 200, payment_intent_id=plot.id("pi"))
    lessened = (
        {"pre_payment_credit_notes_minor": 200}
        if is_note
        else {"starting_balance_minor": -500, "ending_balance_minor": -300}
    )
    plot.bill(names=name, **lessened)


@variants(
    "past Stripe", {"stated": ("off",), "records": ("records",), "before basil": ("old",),
                    "a part": ("part",)},
)  # fmt: skip
def past_stripe(plot: Plot, how: str) -> None:
    name = plot.invoice("paid_out_of_band", FIRST if how == "part" else "stripe_invoice_metadata")
    stated: dict[str, Any] = {
        "off": {"amount_paid_off_stripe_minor": plot.price},
        "part": {"amount_paid_off_stripe_minor": 400},
        "old": {"paid_out_of_band": True, "amount_paid_minor": 0},
        "records": {},
    }[how]
    plot.world.bill(plot.id("in"), plot.price, names=name, currency=plot.currency, **stated)
    if how == "records":
        for number, amount in enumerate((400, plot.price - 400)):
            plot.world.paid(plot.id("in"), record=plot.id("pr", number), amount=amount)
        plot.world.paid(plot.id("in"), record=plot.id("pr", 2), amount=None, status="open")
    if how == "part":
        plot.charge(amount=plot.price - 400)


# ---- charges that belong to no invoice ------------------------------------------------------


@variants(
    "orphan",
    {
        "unknown id": ({"names": "inv_elsewhere"}, "missing_in_gateway"),
        "no id": ({"names": None}, "missing_in_gateway"),
        "another case": ({"names": "INV_1"}, "missing_in_gateway"),
        "young": ({"names": None, "created_at": days_ago(3)}, "in_flight"),
        "test": ({"livemode": False}, "test_mode"),
        "declined": (
            {"status": "failed", "captured": False, "amount_captured_minor": 0},
            "zero_amount",
        ),
        "let go": (
            {"captured": False, "amount_captured_minor": 0, "refunded": True},
            "zero_amount",
        ),
        "waits": (
            {"captured": False, "amount_captured_minor": 0, "created_at": days_ago(14)},
            "in_flight",
        ),
        "waits too long": (
            {"captured": False, "amount_captured_minor": 0, "created_at": days_ago(15)},
            "missing_in_gateway",
        ),
    },
)
def orphan(plot: Plot, stated: dict[str, Any], status: str) -> None:
    plot.expect(plot.charge(**stated), status)


@variants(
    "orphan undone",
    {
        "refunded": (None, "succeeded", "refunded_full"),
        "in part": (400, "succeeded", "missing_in_gateway"),
        "refund failed": (400, "failed", "refund_failed"),
    },
)
def orphan_undone(plot: Plot, amount: int | None, outcome: str, status: str) -> None:
    charge = plot.charge(names=None)
    plot.refund("", charge, plot.price if amount is None else amount, status=outcome)
    plot.expect(charge, status)


@variants(
    "orphan disputed",
    {"open": ("under_review", "disputed_open"), "lost": ("lost", "dispute_lost"),
     "won": ("won", "missing_in_gateway")},
)  # fmt: skip
def orphan_disputed(plot: Plot, outcome: str, status: str) -> None:
    charge = plot.charge(names="inv_elsewhere")
    plot.dispute("", charge, plot.price, outcome)
    plot.expect(charge, status)


@case
def settled_in_another_currency(plot: Plot) -> None:
    """The movement of the balance is in gbp; only the charge's own currency is compared."""
    plot.currency = "usd"
    plot.invoice("matched", FIRST)
    plot.world.moved(plot.id("txn"), plot.charge(balance_transaction_id=plot.id("txn")), "gbp")


@case
def refund_canceled(plot: Plot) -> None:
    plot.invoice("matched", FIRST)
    plot.refund("", plot.charge(), 400, status="canceled")


# Each line of facts/reconciliation.md, section 6, and the cases that plant it.
SECTION_6: dict[str, tuple[str, ...]] = {
    "two partial payments that sum to the total": ("two_parts",),
    "one by charge, one by PaymentIntent metadata": ("two_parts_by_different_rungs",),
    "charged twice, one of them refunded in full": ("charged twice: one refunded in full",),
    "paid, refunded, paid again": ("paid_refunded_and_paid_again",),
    "charged twice, the second refunded in part": ("charged twice: one refunded in part",),
    "partial refund, then a dispute over the rest: open / lost / won": (
        "dispute: open over the rest",
        "dispute: lost over the rest",
        "dispute: won over the rest",
    ),
    "two disputes on one charge, won and lost": ("won_and_lost",),
    "an inquiry closed": ("dispute: inquiry",),
    "refund failed, a new refund of that amount succeeded": (
        "refund failed: made good",
        "refunded_and_failed_then_made_good_in_full",
    ),
    "captured 700 of an authorised 1000": (
        "captured in part: all that is billed",
        "captured in part: the gateway says paid",
        "captured in part: the gateway says open",
    ),
    "a declined attempt, then a charge that settled": ("declined_then_paid",),
    "only declined attempts, 10 days old": ("only_declined",),
    "an open invoice nobody paid, 10 days old": ("open_bill_nobody_paid",),
    "a bank debit pending for 10 days": ("debit: fresh",),
    "credit note before payment": ("charged less: credit note",),
    "customer balance applied": ("charged less: balance",),
    "no charge: total 0, a 100 % credit note, draft, void, uncollectible": (
        "nothing owed: total 0",
        "wholly_credited_before_payment",
        "nothing owed: draft",
        "nothing owed: void",
        "nothing owed: uncollectible",
    ),
    "gateway void, Stripe charged, then refunded in full": ("refunded in full: of a void invoice",),
    "usd invoice and charge, settled in gbp": ("settled_in_another_currency",),
    "the charge names an unknown invoice, the gateway's pi_ another": (
        "unknown_id_and_a_reference",
    ),
    "the gateway names one pi_ on two invoices": ("one_intent_on_two_invoices",),
    "metadata right, the gateway has no pi_ or in_": ("charge_metadata",),
    "subscription metadata carries last month's invoice id": ("subscription_of_last_month",),
    "the only charge naming a paid invoice is a test charge": ("only_a_test_charge",),
    "money equal, the gateway still says open": ("gateway_says_open",),
    "an orphan charge fully refunded; disputed; merely partly refunded": (
        "orphan undone: refunded",
        "orphan disputed: open",
        "orphan undone: in part",
    ),
    "the gateway's words in any case": ("gateway_shouts",),
    "an invoice delivered again is one invoice": ("delivered_again",),
}


@case
def gateway_shouts(plot: Plot) -> None:
    plot.invoice("zero_amount", None, gateway="VOID")


@case
def delivered_again(plot: Plot) -> None:
    """Once as open over another sum; the newest delivery speaks."""
    name = plot.id("inv")
    plot.world.superseded(name, plot.price + 2, currency=plot.currency, status="open")
    plot.invoice("matched", FIRST)
    plot.charge()


def plant(seed: int, count: int) -> tuple[World, Truth]:
    """An account of `count` invoices and charges (or a few more), and the truth of each of its
    rows.
    """
    chance = random.Random(f"planted {seed}")
    world, truth = World(), Truth()
    names = list(CASES)
    for number in range(10**9):
        if number >= 2 * len(names) and len(world.invoices) + len(world.charges) >= count:
            break
        # every case at least twice, in both shapes; then at random
        name = names[number % len(names)] if number < 2 * len(names) else chance.choice(names)
        plot = Plot(
            world,
            number,
            price=2 * chance.randrange(500, 50_000),
            currency=chance.choice(["usd", "eur", "gbp", "jpy", "kwd"]),
            is_basil=number < len(names) or (number >= 2 * len(names) and chance.random() < 0.5),
        )
        CASES[name](plot)
        truth |= plot.truth
    return world, truth
