"""The reconciliation once more, in plain Python, from facts/reconciliation.md alone: no SQL, no
table of ours.

Integers, dates and plain objects. It was written from the specification and reads none of the SQL,
so that where the two agree on many worlds, both are likely to say what the specification says. The
numbers of sections in the comments are those of that page.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

RUNGS = (
    "charge_metadata",
    "charge_invoice_id",
    "payment_intent_metadata",
    "stripe_invoice_metadata",
    "subscription_metadata",
    "gateway_reference",
    "report_invoice_id",
)
STANDING = {
    "test_mode": "agrees",
    "metadata_conflict": "needs_person",
    "workspace_mismatch": "needs_person",
    "currency_mismatch": "needs_person",
    "void_but_paid": "needs_person",
    "disputed_open": "needs_person",
    "dispute_lost": "agrees",
    "refund_failed": "needs_person",
    "refunded_full": "agrees",
    "amount_mismatch": "needs_person",
    "duplicate_charge": "needs_person",
    "overpaid": "needs_person",
    "in_flight": "waits",
    "missing_in_stripe": "needs_person",
    "partially_paid": "waits",
    "zero_amount": "agrees",
    "missing_in_gateway": "needs_person",
    "refunded_partial": "agrees",
    "paid_out_of_band": "agrees",
    "dispute_won": "agrees",
    "matched": "agrees",
    "matched_by_fallback": "agrees",
}
COUNTED = ("succeeded", "pending", "requires_action")
OPEN = ("needs_response", "under_review")
NOTHING_OWED = ("draft", "void", "uncollectible")
Metadata = Mapping[str, str]


@dataclass
class Charge:
    """A charge, and what became of it. Amounts in minor units; refunds and disputes are (created,
    status, amount).
    """

    charge_id: str
    created_at: datetime
    currency: str
    livemode: bool | None  # None: of the warehouse's own mode
    status: str
    amount: int
    amount_captured: int
    captured: bool
    refunded: bool
    metadata: Metadata
    payment_intent_id: str | None = None
    stripe_invoice_id: str | None = None  # before basil
    refunds: list[tuple[datetime, str, int]] = field(default_factory=list)
    disputes: list[tuple[datetime, str, int]] = field(default_factory=list)

    def state(self, livemode: bool) -> str:  # section 2
        if self.livemode not in (None, livemode):
            return "test"
        if self.status == "succeeded" and self.captured and self.amount_captured > 0:
            return "settled"
        if self.status == "pending":
            return "waiting"
        if self.status == "succeeded" and not self.captured and not self.refunded:
            return "waiting"
        return "dead"

    @property
    def refunded_minor(self) -> int:
        return sum(amount for _, status, amount in self.refunds if status in COUNTED)

    @property
    def disputed_minor(self) -> int:
        return sum(amount for _, status, amount in self.disputes if status in (*OPEN, "lost"))

    def failed_not_made_good(self) -> datetime | None:
        failed = [(at, amount) for at, status, amount in self.refunds if status == "failed"]
        if not failed:
            return None
        earliest = min(at for at, _ in failed)
        later = sum(a for at, status, a in self.refunds if status in COUNTED and at > earliest)
        return None if later >= sum(amount for _, amount in failed) else earliest


@dataclass
class PaymentIntent:
    payment_intent_id: str
    livemode: bool
    metadata: Metadata
    stripe_invoice_id: str | None = None  # before basil


@dataclass
class StripeInvoice:
    """Stripe's bill, in either shape: what the other shape has is None."""

    stripe_invoice_id: str
    created_at: datetime
    livemode: bool
    status: str
    currency: str
    total: int
    metadata: Metadata
    subscription_metadata: Metadata
    line_metadata: Sequence[Metadata]
    pre_payment_credit_notes: int = 0
    starting_balance: int = 0
    ending_balance: int | None = None
    amount_due: int = 0
    amount_paid: int = 0
    amount_paid_off_stripe: int | None = None
    charge_id: str | None = None  # before basil, and the two below
    payment_intent_id: str | None = None
    paid_out_of_band: bool | None = None

    def balance_applied(self) -> int:
        return 0 if self.ending_balance is None else self.ending_balance - self.starting_balance


@dataclass
class InvoicePayment:
    stripe_invoice_id: str
    livemode: bool
    status: str  # open | paid | canceled
    kind: str  # payment_intent | charge | payment_record
    paid_by: str  # the id of that
    amount_paid: int | None


@dataclass
class Invoice:
    """The gateway's."""

    invoice_id: str
    workspace_id: str | None
    kind: str
    issued_at: datetime
    currency: str
    total: int
    status: str
    payment_intent_id: str | None = None
    stripe_invoice_id: str | None = None


@dataclass
class Account:
    invoices: Sequence[Invoice] = ()
    charges: Sequence[Charge] = ()
    payment_intents: Sequence[PaymentIntent] = ()
    stripe_invoices: Sequence[StripeInvoice] = ()
    invoice_payments: Sequence[InvoicePayment] = ()
    reports: Sequence[tuple[str, str]] = ()  # (charge, Stripe invoice)


@dataclass
class Judgement:
    rows: dict[str, dict[str, Any]]
    roles: dict[tuple[str, str], tuple[str, str]]  # (charge, invoice) → (role, matched_by)


@dataclass(frozen=True)
class Claim:
    """What a rung says: an invoice, a workspace, or both."""

    rung: str
    invoice_id: str | None
    workspace_id: str | None = None


def said(metadata: Metadata, rung: str) -> list[Claim]:
    invoice = metadata.get("infery_invoice_id", "").strip() or None
    workspace = metadata.get("workspace_id", "").strip() or None
    return [Claim(rung, invoice, workspace)] if invoice or workspace else []


def names(claims: Iterable[Claim]) -> dict[str, str]:
    """The invoice ids named, each with the strongest rung that did."""
    found: dict[str, str] = {}
    for claim in sorted(claims, key=lambda claim: RUNGS.index(claim.rung)):
        if claim.invoice_id:
            found.setdefault(claim.invoice_id, claim.rung)
    return found


class Ladder:
    """Section 3: what every rung reads."""

    def __init__(self, account: Account, livemode: bool) -> None:
        self.livemode = livemode
        self.intents = {
            intent.payment_intent_id: intent
            for intent in account.payment_intents
            if intent.livemode == livemode
        }
        self.bills = {
            bill.stripe_invoice_id: bill
            for bill in account.stripe_invoices
            if bill.livemode == livemode
        }
        self.payments = [
            payment for payment in account.invoice_payments if payment.livemode == livemode
        ]
        self.paid_by: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self.recorded: defaultdict[str, int] = defaultdict(int)  # paid past Stripe
        for payment in self.payments:
            if payment.kind == "payment_record" and payment.status == "paid":
                self.recorded[payment.stripe_invoice_id] += payment.amount_paid or 0
            if payment.status != "canceled":
                self.paid_by[payment.kind, payment.paid_by].add(payment.stripe_invoice_id)
        self.of_old: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for bill in self.bills.values():
            if bill.charge_id:
                self.of_old["charge", bill.charge_id].add(bill.stripe_invoice_id)
            if bill.payment_intent_id:
                self.of_old["payment_intent", bill.payment_intent_id].add(bill.stripe_invoice_id)
        self.referring: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for invoice in account.invoices:
            if invoice.payment_intent_id:
                self.referring["intent", invoice.payment_intent_id].add(invoice.invoice_id)
            if invoice.stripe_invoice_id:
                self.referring["bill", invoice.stripe_invoice_id].add(invoice.invoice_id)
        self.reported: defaultdict[str, set[str]] = defaultdict(set)
        for charge_id, stripe_invoice_id in account.reports:
            self.reported[charge_id].add(stripe_invoice_id)

    def bills_of(self, charge: Charge) -> set[str]:
        """The ids of the charge's Stripe invoice (one, unless a PaymentIntent pays several)."""
        if charge.state(self.livemode) == "test":
            return {charge.stripe_invoice_id} if charge.stripe_invoice_id else set()
        intent_id = charge.payment_intent_id
        found = set(self.paid_by["charge", charge.charge_id])
        if intent_id:
            found |= self.paid_by["payment_intent", intent_id]
        if found:
            return found
        if charge.stripe_invoice_id:
            return {charge.stripe_invoice_id}
        intent = self.intents.get(intent_id or "")
        if intent and intent.stripe_invoice_id:
            return {intent.stripe_invoice_id}
        found = set(self.of_old["charge", charge.charge_id])
        return found | self.of_old["payment_intent", intent_id] if intent_id else found

    def of_bill(self, stripe_invoice_id: str) -> list[Claim]:
        """Rungs 4, 5 and 6, for a Stripe invoice."""
        claims = []
        if bill := self.bills.get(stripe_invoice_id):
            claims += said(bill.metadata, "stripe_invoice_metadata")
            for metadata in (bill.subscription_metadata, *bill.line_metadata):
                claims += said(metadata, "subscription_metadata")
        for invoice_id in self.referring["bill", stripe_invoice_id]:
            claims.append(Claim("gateway_reference", invoice_id))
        return claims

    def of_charge(self, charge: Charge) -> list[Claim]:
        """All seven rungs; a test charge climbs none."""
        if charge.state(self.livemode) == "test":
            return []
        claims = [
            Claim(
                "charge_metadata" if claim.workspace_id else "charge_invoice_id",
                claim.invoice_id,
                claim.workspace_id,
            )
            for claim in said(charge.metadata, "charge_metadata")
        ]
        if charge.payment_intent_id:
            if intent := self.intents.get(charge.payment_intent_id):
                claims += said(intent.metadata, "payment_intent_metadata")
            for invoice_id in self.referring["intent", charge.payment_intent_id]:
                claims.append(Claim("gateway_reference", invoice_id))
        for stripe_invoice_id in self.bills_of(charge):
            claims += self.of_bill(stripe_invoice_id)
        for stripe_invoice_id in self.reported[charge.charge_id]:
            for claim in self.of_bill(stripe_invoice_id):
                if claim.invoice_id:
                    claims.append(Claim("report_invoice_id", claim.invoice_id))
        return claims


@dataclass
class Linked:
    """A charge that belongs to an invoice."""

    charge: Charge
    rung: str
    state: str
    claims: list[Claim]


@dataclass
class Tied:
    """A Stripe invoice tied to a gateway invoice."""

    bill: StripeInvoice
    rung: str | None  # that ties it; None: the charges alone do
    out_of_band: int


def reconcile(
    account: Account,
    today: date,
    *,
    livemode: bool = True,
    settle_days: int = 3,
    pending_days: int = 14,
) -> Judgement:
    """Every invoice and every charge with its status, sums and standing."""
    ladder = Ladder(account, livemode)
    known = {invoice.invoice_id: invoice for invoice in account.invoices}
    linked: defaultdict[str, list[Linked]] = defaultdict(list)
    paid_for: defaultdict[str, set[str]] = defaultdict(set)  # Stripe invoice → whom charges mean
    contradicted: set[str] = set()
    alone: list[tuple[Charge, dict[str, str], list[Claim]]] = []
    roles: dict[tuple[str, str], tuple[str, str]] = {}
    for charge in account.charges:
        state = charge.state(livemode)
        claims = ladder.of_charge(charge)
        named = names(claims)
        if len(named) > 1 and state != "dead":
            for name in named.keys() & known.keys():
                contradicted.add(name)
                roles[charge.charge_id, name] = ("conflict", named[name])
        if len(named) == 1 and next(iter(named)) in known:
            [(name, rung)] = named.items()
            linked[name].append(Linked(charge, rung, state, claims))
            roles[charge.charge_id, name] = (state, rung)
            if state in ("settled", "waiting"):
                for stripe_invoice_id in ladder.bills_of(charge):
                    paid_for[stripe_invoice_id].add(name)
        else:
            alone.append((charge, named, claims))

    tied: defaultdict[str, list[Tied]] = defaultdict(list)
    for bill in ladder.bills.values():
        if bill.status == "draft":
            continue
        rungs = names(ladder.of_bill(bill.stripe_invoice_id))
        named_by_any = rungs.keys() | paid_for[bill.stripe_invoice_id]
        if len(named_by_any) > 1:
            contradicted |= named_by_any & known.keys()
        elif named_by_any <= known.keys():
            for name in named_by_any:
                tied[name].append(Tied(bill, rungs.get(name), _out_of_band(bill, ladder)))

    rows: dict[str, dict[str, Any]] = {}
    for invoice in known.values():
        rows[invoice.invoice_id] = _invoice_row(
            invoice,
            linked[invoice.invoice_id],
            tied[invoice.invoice_id],
            ladder,
            invoice.invoice_id in contradicted,
            today,
            settle_days,
            pending_days,
        )
    for charge, named, claims in alone:
        rows[charge.charge_id] = _charge_row(
            charge, named, claims, ladder, today, settle_days, pending_days
        )
    for row in rows.values():
        row["standing"] = STANDING[row["status"]]
        if row["standing"] == "agrees":
            row["opened_at"] = None
        row["age_days"] = (today - row["opened_at"].date()).days if row["opened_at"] else None
    return Judgement(rows, roles)


def _out_of_band(bill: StripeInvoice, ladder: Ladder) -> int:
    if bill.amount_paid_off_stripe is not None:
        return bill.amount_paid_off_stripe
    if bill.paid_out_of_band is not None:  # before basil
        return bill.amount_due - bill.amount_paid if bill.paid_out_of_band else 0
    return ladder.recorded[bill.stripe_invoice_id]


def _money(
    charged: int, out_of_band: int, refunded: int, disputed: int, expected: int
) -> dict[str, int]:
    received = charged + out_of_band
    return {
        "expected_minor": expected,
        "charged_minor": charged,
        "out_of_band_minor": out_of_band,
        "refunded_minor": refunded,
        "disputed_minor": disputed,
        "kept_minor": received - refunded - disputed,
        "difference_minor": received - expected - min(refunded, max(0, received - expected)),
    }


def _invoice_row(
    invoice: Invoice,
    linked: list[Linked],
    tied: list[Tied],
    ladder: Ladder,
    is_contradicted: bool,
    today: date,
    settle_days: int,
    pending_days: int,
) -> dict[str, Any]:
    settled = [one.charge for one in linked if one.state == "settled"]
    live = [one for one in linked if one.state in ("settled", "waiting")]
    counted = [charge for charge in settled if charge.currency == invoice.currency]
    rungs = [one.rung for one in linked if one.state == "settled"]
    rungs = rungs or [one.rung for one in linked] or [one.rung for one in tied if one.rung]
    bills = [one for one in tied if one.bill.status in ("open", "paid", "uncollectible")]
    summed = [one for one in bills if one.bill.currency == invoice.currency]

    # section 4
    nothing_owed = invoice.status in NOTHING_OWED
    lessened = sum(one.bill.pre_payment_credit_notes + one.bill.balance_applied() for one in summed)
    expected = 0 if nothing_owed else max(0, invoice.total - lessened)
    billed = sum(one.bill.total for one in summed) if summed else None
    charged = sum(charge.amount_captured for charge in counted)
    out_of_band = sum(one.out_of_band for one in summed)
    received = charged + out_of_band
    refunded = sum(charge.refunded_minor for charge in counted)
    disputed = sum(charge.disputed_minor for charge in counted)
    held = received - refunded
    kept = held - disputed

    fresh = any(
        one.state == "waiting" and (today - one.charge.created_at.date()).days <= pending_days
        for one in linked
    )
    young = (today - invoice.issued_at.date()).days <= settle_days
    open_disputes = [at for c in settled for at, status, _ in c.disputes if status in OPEN]
    outcomes = {status for charge in settled for _, status, _ in charge.disputes}
    failed = [at for charge in settled if (at := charge.failed_not_made_good()) is not None]
    claims = {claim.workspace_id for one in live for claim in one.claims}
    claims |= {
        claim.workspace_id for one in tied for claim in ladder.of_bill(one.bill.stripe_invoice_id)
    }
    not_undone = [charge.amount_captured - charge.refunded_minor for charge in counted]
    not_undone = [net for net in not_undone if net > 0]
    all_void = bool(tied) and all(one.bill.status == "void" for one in tied)
    opened_at = invoice.issued_at

    # section 5
    if is_contradicted:
        status = "metadata_conflict"
    elif invoice.workspace_id and claims - {None, invoice.workspace_id}:
        status = "workspace_mismatch"
    elif any(one.charge.currency != invoice.currency for one in live) or len(summed) < len(bills):
        status = "currency_mismatch"
    elif (nothing_owed or all_void) and kept > 0:
        status = "void_but_paid"
    elif open_disputes:
        status, opened_at = "disputed_open", min(open_disputes)
    elif "lost" in outcomes:
        status = "dispute_lost"
    elif failed:
        status, opened_at = "refund_failed", min(failed)
    elif refunded > 0 and received >= expected and held <= 0:
        status = "refunded_full"
    elif (billed is not None and billed != invoice.total) or (
        invoice.status == "paid" and 0 < received < expected and not fresh
    ):
        status = "amount_mismatch"
    elif held > expected and len(not_undone) >= 2 and held - min(not_undone) >= expected:
        status = "duplicate_charge"
    elif held > expected:
        status = "overpaid"
    elif received < expected and (fresh or (received == 0 and young)):
        status = "in_flight"
    elif expected > 0 and received == 0:
        status = "missing_in_stripe"
    elif 0 < received < expected:
        status = "partially_paid"
    elif expected == 0 and received == 0:
        status = "zero_amount"
    elif held < expected:
        status = "refunded_partial"
    elif out_of_band > 0:
        status = "paid_out_of_band"
    elif "won" in outcomes:
        status = "dispute_won"
    elif all(one.rung == "charge_metadata" for one in linked if one.state == "settled"):
        status = "matched"
    else:
        status = "matched_by_fallback"

    newest = max(
        (one.charge for one in linked), key=lambda c: (c.created_at, c.charge_id), default=None
    )
    newest_tied = max(
        (one.bill for one in tied), key=lambda b: (b.created_at, b.stripe_invoice_id), default=None
    )
    stripe_invoice_id = newest_tied.stripe_invoice_id if newest_tied else None
    if stripe_invoice_id is None and newest:
        stripe_invoice_id = min(ladder.bills_of(newest), default=None)
    return {
        "item_kind": "invoice",
        "invoice_id": invoice.invoice_id,
        "charge_id": None,
        "claimed_invoice_id": None,
        "workspace_id": invoice.workspace_id,
        "kind": invoice.kind,
        "stripe_invoice_id": stripe_invoice_id or invoice.stripe_invoice_id,
        "payment_intent_id": (newest.payment_intent_id if newest else None)
        or invoice.payment_intent_id,
        "status": status,
        "matched_by": max(rungs, key=RUNGS.index) if rungs else None,
        "currency": invoice.currency,
        "total_minor": invoice.total,
        "billed_minor": billed,
        "charge_count": len(settled),
        "opened_at": opened_at,
    } | _money(charged, out_of_band, refunded, disputed, expected)


def _charge_row(
    charge: Charge,
    named: Mapping[str, str],
    claims: Iterable[Claim],
    ladder: Ladder,
    today: date,
    settle_days: int,
    pending_days: int,
) -> dict[str, Any]:
    state = charge.state(ladder.livemode)
    is_settled = state == "settled"
    received = charge.amount_captured if is_settled else 0
    refunded = charge.refunded_minor if is_settled else 0
    disputed = charge.disputed_minor if is_settled else 0
    age = (today - charge.created_at.date()).days
    own = said(charge.metadata, "charge_metadata")
    claims = own if state == "test" else claims
    all_named = list(names(own)) if state == "test" else list(named)
    opened_at = charge.created_at
    open_disputes = [at for at, how, _ in charge.disputes if how in OPEN and is_settled]
    outcomes = {status for _, status, _ in charge.disputes} if is_settled else set()
    failed = charge.failed_not_made_good() if is_settled else None
    if state == "test":
        status = "test_mode"
    elif len(named) > 1 and state != "dead":
        status = "metadata_conflict"
    elif open_disputes:
        status, opened_at = "disputed_open", min(open_disputes)
    elif "lost" in outcomes:
        status = "dispute_lost"
    elif failed:
        status, opened_at = "refund_failed", failed
    elif refunded > 0 and received - refunded <= 0:
        status = "refunded_full"
    elif (is_settled and age <= settle_days) or (state == "waiting" and age <= pending_days):
        status = "in_flight"
    elif state == "dead":
        status = "zero_amount"
    else:
        status = "missing_in_gateway"
    workspaces = sorted(
        (RUNGS.index(claim.rung), claim.workspace_id) for claim in claims if claim.workspace_id
    )
    return {
        "item_kind": "charge",
        "invoice_id": None,
        "charge_id": charge.charge_id,
        "claimed_invoice_id": all_named[0] if len(all_named) == 1 else None,
        "workspace_id": workspaces[0][1] if workspaces else None,
        "kind": None,
        "stripe_invoice_id": min(ladder.bills_of(charge), default=None),
        "payment_intent_id": charge.payment_intent_id,
        "status": status,
        "matched_by": None,
        "currency": charge.currency,
        "total_minor": 0,
        "billed_minor": None,
        "charge_count": int(is_settled),
        "opened_at": opened_at,
    } | _money(received, 0, refunded, disputed, 0)
