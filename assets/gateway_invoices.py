"""The gateway's invoices (Billing → History), from files: raw.invoices.

Contract, "Inputs". The status words are Stripe's five, in any case; another word goes to quarantine
with its line, and so does an invoice whose net and VAT do not make its total: the claim `net + vat
= total` must never be broken by something that was let in. Which delivery of an invoice speaks is
decided in staging.invoices.
"""

from typing import Any

from pipelines import tabular
from pipelines.calendar import Clock
from pipelines.reading import RecordRefused
from pipelines.settings import Settings
from pipelines.store import Draft
from pipelines.tabular import Column

STATUSES = ("draft", "open", "paid", "void", "uncollectible")

COLUMNS = {
    "infery_invoice_id": Column("varchar", "the gateway's id", tabular.needed(tabular.text)),
    "workspace_id": Column("varchar", "whose bill it is", tabular.text),
    "kind": Column("varchar", "subscription | topup", tabular.word("subscription", "topup")),
    "issued_at": Column("timestamp", "UTC", tabular.needed(tabular.instant)),
    "currency": Column("varchar", "lower-case ISO code", tabular.needed(tabular.currency)),
    "net_minor": Column("bigint", "minor units", tabular.integer),
    "vat_minor": Column("bigint", "the customer's VAT, minor units", tabular.integer),
    "total_minor": Column("bigint", "net + VAT, minor units", tabular.needed(tabular.integer)),
    "credits": Column("decimal(18,9)", "what it buys", tabular.nine_places),
    "payment_intent_id": Column("varchar", "the gateway's reference into Stripe", tabular.text),
    "stripe_invoice_id": Column("varchar", "likewise", tabular.text),
    "status": Column("varchar", " | ".join(STATUSES), tabular.needed(tabular.word(*STATUSES))),
    "pdf_url": Column("varchar", "", tabular.text),
    "receipt_url": Column("varchar", "", tabular.text),
}

TABLES = {
    "raw.invoices": tabular.raw_table("A gateway invoice as one delivery states it.", COLUMNS),
    "raw.files": tabular.FILES,
}


def check(row: dict[str, Any]) -> None:
    """Raises RecordRefused when net and VAT are both stated and do not make the total."""
    net, vat, total = row["net_minor"], row["vat_minor"], row["total_minor"]
    if net is not None and vat is not None and net + vat != total:
        raise RecordRefused(f"net_minor {net} + vat_minor {vat} is not total_minor {total}")


def land(draft: Draft, settings: Settings, clock: Clock) -> None:
    """Every file that is new at `[invoices] location`."""
    types = {name: kind for name, (kind, _) in TABLES["raw.invoices"].columns.items()}
    rows = []
    for arrival in tabular.arrivals(
        draft, clock, settings.place(settings.invoices.location), "invoices"
    ):
        rows += tabular.land_rows(arrival, COLUMNS, check)
    if rows:
        draft.append("raw.invoices", tabular.arrow(rows, types))
