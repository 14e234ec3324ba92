"""The reconciliation once more, in plain Python, from facts/reconciliation.md alone: no SQL, no
table of ours.

Integers, dates and dicts. It was written from the specification and reads none of the SQL, so that
where the two agree on many worlds, both are likely to say what the specification says. It covers
what charges, refunds and disputes decide; claims of rungs 3 to 7 can be given, bills of Stripe
invoices can't.
"""

from collections.abc import Iterable, Mapping
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


@dataclass
class Charge:
    """A charge, and what became of it. Amounts in minor units."""

    charge_id: str
    created_at: datetime
    currency: str
    livemode: bool
    status: str
    amount: int
    amount_captured: int
    captured: bool
    refunded: bool
    metadata: Mapping[str, str]
    payment_intent_id: str | None = None
    refunds: list[tuple[datetime, str, int]] = field(default_factory=list)
    disputes: list[tuple[datetime, str, int]] = field(default_factory=list)
    claims: list[tuple[str, str | None, str | None]] = field(
        default_factory=list
    )  # rung 3 and beyond

    def state(self, livemode: bool) -> str:
        if self.livemode != livemode:
            return "test"
        if self.status == "succeeded" and self.captured and self.amount_captured > 0:
            return "settled"
        if self.status == "pending":
            return "waiting"
        if self.status == "succeeded" and not self.captured and not self.refunded:
            return "waiting"
        return "dead"

    def stated(self, key: str) -> str | None:
        return self.metadata.get(key, "").strip() or None

    def ladder(self) -> list[tuple[str, str | None, str | None]]:
        """(rung, invoice named, workspace claimed), strongest first."""
        invoice, workspace = self.stated("infery_invoice_id"), self.stated("workspace_id")
        own: list[tuple[str, str | None, str | None]] = []
        if invoice and workspace:
            own.append(("charge_metadata", invoice, workspace))
        elif invoice:
            own.append(("charge_invoice_id", invoice, None))
        elif workspace:
            own.append(("charge_metadata", None, workspace))
        return own + sorted(self.claims, key=lambda claim: RUNGS.index(claim[0]))

    def names(self) -> set[str]:
        return {invoice for _, invoice, _ in self.ladder() if invoice}

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


COUNTED = ("succeeded", "pending", "requires_action")
OPEN = ("needs_response", "under_review")


@dataclass
class Invoice:
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
class Judgement:
    rows: dict[str, dict[str, Any]]
    roles: dict[tuple[str, str], tuple[str, str]]  # (charge, invoice) → (role, matched_by)


def reconcile(
    invoices: Iterable[Invoice],
    charges: Iterable[Charge],
    today: date,
    *,
    livemode: bool = True,
    settle_days: int = 3,
    pending_days: int = 14,
) -> Judgement:
    """Every invoice and every charge with its status, sums and standing."""
    known = {invoice.invoice_id: invoice for invoice in invoices}
    linked: dict[str, list[tuple[Charge, str, str]]] = {name: [] for name in known}
    contradicted: set[str] = set()
    alone: list[Charge] = []
    roles: dict[tuple[str, str], tuple[str, str]] = {}
    for charge in charges:
        state = charge.state(livemode)
        names = set() if state == "test" else charge.names()
        strongest = {
            name: next(rung for rung, named, _ in charge.ladder() if named == name)
            for name in names
        }
        if len(names) > 1 and state != "dead":
            for name in names & set(known):
                contradicted.add(name)
                roles[charge.charge_id, name] = ("conflict", strongest[name])
        if len(names) == 1 and next(iter(names)) in known:
            name = next(iter(names))
            linked[name].append((charge, strongest[name], state))
            roles[charge.charge_id, name] = (state, strongest[name])
        else:
            alone.append(charge)

    rows: dict[str, dict[str, Any]] = {}
    for invoice in known.values():
        rows[invoice.invoice_id] = _invoice_row(
            invoice,
            linked[invoice.invoice_id],
            invoice.invoice_id in contradicted,
            today,
            settle_days,
            pending_days,
        )
    for charge in alone:
        rows[charge.charge_id] = _charge_row(
            charge, charge.state(livemode), today, settle_days, pending_days
        )
    for row in rows.values():
        row["standing"] = STANDING[row["status"]]
        if row["standing"] == "agrees":
            row["opened_at"] = None
        row["age_days"] = (today - row["opened_at"].date()).days if row["opened_at"] else None
    return Judgement(rows, roles)


def _money(charged: int, refunded: int, disputed: int, expected: int) -> dict[str, int]:
    return {
        "expected_minor": expected,
        "charged_minor": charged,
        "out_of_band_minor": 0,
        "refunded_minor": refunded,
        "disputed_minor": disputed,
        "kept_minor": charged - refunded - disputed,
        "difference_minor": charged - expected - min(refunded, max(0, charged - expected)),
    }


def _invoice_row(
    invoice: Invoice,
    linked: list[tuple[Charge, str, str]],
    is_contradicted: bool,
    today: date,
    settle_days: int,
    pending_days: int,
) -> dict[str, Any]:
    settled = [(charge, rung) for charge, rung, state in linked if state == "settled"]
    live = [charge for charge, _, state in linked if state in ("settled", "waiting")]
    counted = [charge for charge, _ in settled if charge.currency == invoice.currency]
    rungs = [rung for _, rung in settled] or [rung for _, rung, _ in linked]
    nothing_owed = invoice.status in ("draft", "void", "uncollectible")
    expected = 0 if nothing_owed else max(0, invoice.total)
    received = sum(charge.amount_captured for charge in counted)
    refunded = sum(charge.refunded_minor for charge in counted)
    disputed = sum(charge.disputed_minor for charge in counted)
    held = received - refunded
    fresh = any(
        state == "waiting" and (today - charge.created_at.date()).days <= pending_days
        for charge, _, state in linked
    )
    young = (today - invoice.issued_at.date()).days <= settle_days
    open_disputes = [
        at for charge, _ in settled for at, status, _ in charge.disputes if status in OPEN
    ]
    outcomes = {status for charge, _ in settled for _, status, _ in charge.disputes}
    failed = [at for charge, _ in settled if (at := charge.failed_not_made_good()) is not None]
    claims = {workspace for charge in live for _, _, workspace in charge.ladder() if workspace}
    not_undone = [charge.amount_captured - charge.refunded_minor for charge in counted]
    not_undone = [net for net in not_undone if net > 0]
    opened_at = invoice.issued_at

    if is_contradicted:
        status = "metadata_conflict"
    elif invoice.workspace_id and claims - {invoice.workspace_id}:
        status = "workspace_mismatch"
    elif any(charge.currency != invoice.currency for charge in live):
        status = "currency_mismatch"
    elif nothing_owed and held - disputed > 0:
        status = "void_but_paid"
    elif open_disputes:
        status, opened_at = "disputed_open", min(open_disputes)
    elif "lost" in outcomes:
        status = "dispute_lost"
    elif failed:
        status, opened_at = "refund_failed", min(failed)
    elif refunded > 0 and received >= expected and held <= 0:
        status = "refunded_full"
    elif invoice.status == "paid" and 0 < received < expected and not fresh:
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
    elif "won" in outcomes:
        status = "dispute_won"
    elif all(rung == "charge_metadata" for _, rung in settled):
        status = "matched"
    else:
        status = "matched_by_fallback"

    newest = max(
        (charge for charge, _, _ in linked), key=lambda c: (c.created_at, c.charge_id), default=None
    )
    return {
        "item_kind": "invoice",
        "invoice_id": invoice.invoice_id,
        "charge_id": None,
        "claimed_invoice_id": None,
        "workspace_id": invoice.workspace_id,
        "kind": invoice.kind,
        "stripe_invoice_id": invoice.stripe_invoice_id,
        "payment_intent_id": (newest.payment_intent_id if newest else None)
        or invoice.payment_intent_id,
        "status": status,
        "matched_by": max(rungs, key=RUNGS.index) if rungs else None,
        "currency": invoice.currency,
        "total_minor": invoice.total,
        "billed_minor": None,
        "charge_count": len(settled),
        "opened_at": opened_at,
    } | _money(received, refunded, disputed, expected)


def _charge_row(
    charge: Charge, state: str, today: date, settle_days: int, pending_days: int
) -> dict[str, Any]:
    is_settled = state == "settled"
    received = charge.amount_captured if is_settled else 0
    refunded = charge.refunded_minor if is_settled else 0
    disputed = charge.disputed_minor if is_settled else 0
    age = (today - charge.created_at.date()).days
    names = {charge.stated("infery_invoice_id")} - {None} if state == "test" else charge.names()
    opened_at = charge.created_at
    open_disputes = (
        [at for at, status, _ in charge.disputes if status in OPEN] if is_settled else []
    )
    outcomes = {status for _, status, _ in charge.disputes} if is_settled else set()
    failed = charge.failed_not_made_good() if is_settled else None
    if state == "test":
        status = "test_mode"
    elif len(names) > 1 and state != "dead":
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
    own = charge.stated("workspace_id") or next((w for _, _, w in charge.ladder() if w), None)
    return {
        "item_kind": "charge",
        "invoice_id": None,
        "charge_id": charge.charge_id,
        "claimed_invoice_id": next(iter(names)) if len(names) == 1 else None,
        "workspace_id": own,
        "kind": None,
        "stripe_invoice_id": None,
        "payment_intent_id": charge.payment_intent_id,
        "status": status,
        "matched_by": None,
        "currency": charge.currency,
        "total_minor": 0,
        "billed_minor": None,
        "charge_count": int(is_settled),
        "opened_at": opened_at,
    } | _money(received, refunded, disputed, 0)
