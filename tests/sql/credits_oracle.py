"""The credits side once more, in plain Python, from facts/reconciliation.md, section 8, alone: what
a pack is backed by, and which movements follow from money that went back.

Fractions, rounded once; it stands on the other oracle's statuses and sums, and reads no SQL.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

from reconciliation_oracle import COUNTED, OPEN

Row = Mapping[str, Any]
NOUGHT = Decimal(0)
BACKED = (
    *("matched", "matched_by_fallback", "paid_out_of_band", "dispute_won", "overpaid"),
    *("duplicate_charge", "refunded_partial", "refunded_full", "disputed_open", "dispute_lost"),
    "refund_failed",
)
PENDING = ("in_flight", "amount_mismatch", "partially_paid")


@dataclass
class Event:
    """Money that went back, or may: `what` is refund or dispute; amounts in minor units."""

    event_id: str
    what: str
    status: str
    created_at: datetime
    amount: int

    @property
    def is_gone(self) -> bool:
        """It counts: the money went back for good."""
        return self.status in COUNTED if self.what == "refund" else self.status == "lost"

    @property
    def is_held(self) -> bool:
        return self.what == "dispute" and self.status in OPEN


def rounded(credits: Decimal, back: int, expected: int) -> Decimal:
    """The part of a pack, half-even to nine places."""
    if not expected:
        return NOUGHT
    share = Fraction(credits) * max(0, min(back, expected)) / expected * 10**9
    whole, rest = divmod(share.numerator, share.denominator)
    if 2 * rest > share.denominator or (2 * rest == share.denominator and whole % 2):
        whole += 1
    return Decimal(whole).scaleb(-9).quantize(Decimal("1e-9"), ROUND_HALF_EVEN)


def events_of(
    invoices: Sequence[Row],
    charges: Sequence[Row],
    refunds: Sequence[Row],
    disputes: Sequence[Row],
    roles: Mapping[tuple[str, str], tuple[str, str]],
) -> dict[str, list[Event]]:
    """Of each invoice what went back of its settled charges in its currency, in order."""
    currency = {row["infery_invoice_id"]: row["currency"] for row in invoices}
    charged_in = {row["charge_id"]: row["currency"] for row in charges}
    belongs = {
        charge: invoice for (charge, invoice), (role, _) in roles.items() if role == "settled"
    }
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for what, rows in (("refund", refunds), ("dispute", disputes)):
        for row in rows:
            invoice = belongs.get(row["charge_id"])
            if row.get("reporting_category") == "partial_capture_reversal" or invoice is None:
                continue
            if row["status"].startswith("warning_") or row["status"] == "prevented":
                continue
            if not currency[invoice] == charged_in[row["charge_id"]] == row["currency"]:
                continue
            event = Event(
                row[f"{what}_id"], what, row["status"], row["created_at"], row["amount_minor"]
            )
            found[invoice].append(event)
    for some in found.values():
        some.sort(key=lambda event: (event.created_at, event.event_id))
    return found


def movements(
    invoice: Row, judged: Row, events: Sequence[Event]
) -> dict[str, tuple[str, Decimal, date]]:
    """Movement → (kind, credits, day) of one granted invoice; by the settings' defaults."""
    name, credits, expected = (
        invoice["infery_invoice_id"],
        invoice["credits"],
        judged["expected_minor"],
    )
    kind = "topup" if invoice["kind"] == "topup" else "grant"
    posted = {f"grant_{name}": (kind, credits, invoice["issued_at"].date())}
    excess = max(0, judged["charged_minor"] + judged["out_of_band_minor"] - expected)
    back = 0
    for event in events:
        share = rounded(credits, back + event.amount - excess, expected)
        share -= rounded(credits, back - excess, expected)
        day = event.created_at.date()
        if event.is_gone or event.is_held:
            back += event.amount
        if event.is_held or (event.what == "dispute" and event.status == "won"):
            posted[f"hold_{event.event_id}"] = ("hold", -share, day)
        else:
            posted[f"clawback_{event.event_id}"] = ("clawback", -share, day)
        if event.what == "dispute" and event.status == "won":
            posted[f"release_{event.event_id}"] = ("release", share, day)
        if event.what == "refund" and not event.is_gone:
            posted[f"reversal_{event.event_id}"] = ("clawback", share, day)
    return posted


def backing(
    invoice: Row | None, judged: Row, events: Sequence[Event], today: date, settle_days: int = 3
) -> tuple[str, dict[str, Decimal]] | None:
    """What stands behind a row's pack, and how the pack is split; None: nothing to tell."""
    status = judged["status"]
    is_granted = bool(invoice and invoice["status"] == "paid" and invoice["credits"] > 0)
    if not is_granted or invoice is None:
        is_left_open = (
            invoice is not None
            and invoice["status"] == "open"
            and judged["standing"] == "agrees"
            and judged["kept_minor"] > 0
            and (today - invoice["issued_at"].date()).days > settle_days
        )
        is_money = status in ("void_but_paid", "missing_in_gateway") or is_left_open
        return ("ungranted", {}) if is_money else None
    moved = movements(invoice, judged, events)
    of = {event.event_id: event for event in events}

    def taken(test: str) -> Decimal:
        return -sum(
            (credits for key, (_, credits, _) in moved.items()
             if (event := of.get(key.partition("_")[2])) and getattr(event, test)),
            NOUGHT,
        )  # fmt: skip

    lost, held = taken("is_gone"), taken("is_held")
    rest = invoice["credits"] - lost - held
    split = {"lost": lost, "held": held}
    if status == "zero_amount":
        return "promotional", split | {"promotional": rest}
    if status in PENDING:
        return "pending", split | {"unbacked": rest}
    if status not in BACKED:
        return "unbacked", split | {"unbacked": rest}
    word = "backed"
    if status == "disputed_open" and held > 0:
        word = "held"
    elif status == "dispute_lost" or lost == invoice["credits"]:
        word = "lost"
    return word, split | {"backed": rest}
