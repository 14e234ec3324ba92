"""A gateway and a Stripe account as raw rows, in either of Stripe's shapes; and the same world as
the oracle sees it.

A world states what Stripe's objects say, nothing of what follows from it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from reconciliation_oracle import (
    Account,
    Charge,
    Invoice,
    InvoicePayment,
    PaymentIntent,
    StripeInvoice,
)

from pipelines import tabular
from pipelines.calendar import Clock
from pipelines.contents import raw_tables
from pipelines.models import Models, empty_select
from pipelines.settings import Settings
from tests.houses import rolled_back

TODAY = date(2026, 11, 20)
NOON = datetime(2026, 11, 20, 12)
Row = dict[str, Any]
Stated = Mapping[str, str | None]


def days_ago(days: float) -> datetime:
    return NOON - timedelta(days=days)


def metadata(names: str | None = None, workspace: str | None = None) -> str:
    """The two keys of Stripe's metadata as raw keeps them; what is None is not among them."""
    stated = {"infery_invoice_id": names, "workspace_id": workspace}
    return json.dumps({key: text for key, text in stated.items() if text is not None})


def told(kind: str, identifier: str, **stated: Any) -> Row:
    """A row of raw as the API gives it."""
    return {
        f"{kind}_id": identifier,
        "origin": "api",
        "livemode": True,
        "created_at": days_ago(19),
        "currency": "usd",
        "record_sha256": f"sha-{identifier}",
        "arrived_at": NOON,
    } | stated


@dataclass
class World:
    """Raw rows, by table; each method adds one object and gives the world back."""

    invoices: list[Row] = field(default_factory=list)
    charges: list[Row] = field(default_factory=list)
    refunds: list[Row] = field(default_factory=list)
    disputes: list[Row] = field(default_factory=list)
    intents: list[Row] = field(default_factory=list)
    bills: list[Row] = field(default_factory=list)
    payments: list[Row] = field(default_factory=list)
    reports: list[Row] = field(default_factory=list)
    older: list[Row] = field(default_factory=list)  # deliveries of invoices that do not speak
    movements: list[Row] = field(default_factory=list)

    def superseded(self, invoice_id: str, total: int, **stated: Any) -> "World":
        """An earlier delivery of a gateway invoice."""
        self.invoice(invoice_id, total, **stated)
        row = self.invoices.pop()
        self.older.append(row | {"arrived_at": days_ago(1), "source_object": "earlier file"})
        return self

    def moved(self, transaction_id: str, source_id: str, currency: str) -> "World":
        """The movement of the balance behind a charge, in the currency of settlement."""
        row = told(
            "balance_transaction",
            transaction_id,
            source_id=source_id,
            currency=currency,
            type="charge",
            reporting_category="charge",
            amount_minor=800,
            fee_minor=20,
            net_minor=780,
        )
        self.movements.append(row)
        return self

    def invoice(self, invoice_id: str = "inv_1", total: int = 1000, **stated: Any) -> "World":
        row = {
            "infery_invoice_id": invoice_id,
            "workspace_id": "ws_1",
            "kind": "topup",
            "issued_at": days_ago(20),
            "currency": "usd",
            "net_minor": total,
            "vat_minor": 0,
            "total_minor": total,
            "credits": total * Decimal("0.123456789"),
            "status": "paid",
            "source_object": "file",
            "source_line": len(self.invoices) + 2,
            "arrived_at": NOON,
        }
        self.invoices.append(row | stated)
        return self

    def charge(
        self,
        charge_id: str = "ch_1",
        amount: int = 1000,
        *,
        names: str | None = "inv_1",
        workspace: str | None = "ws_1",
        **stated: Any,
    ) -> "World":
        row = told(
            "charge",
            charge_id,
            status="succeeded",
            amount_minor=amount,
            amount_captured_minor=amount,
            amount_refunded_minor=0,
            captured=True,
            refunded=False,
            disputed=False,
            metadata=metadata(names, workspace),
        )
        self.charges.append(row | stated)
        return self

    def silent(self, charge_id: str = "ch_1", amount: int = 1000, **stated: Any) -> "World":
        """A charge whose own metadata is empty: so are those of subscriptions."""
        return self.charge(charge_id, amount, names=None, workspace=None, **stated)

    def declined(self, charge_id: str, **stated: Any) -> "World":
        return self.charge(
            charge_id, status="failed", captured=False, amount_captured_minor=0, **stated
        )

    def pending(self, charge_id: str, **stated: Any) -> "World":
        return self.charge(
            charge_id, status="pending", captured=False, amount_captured_minor=0, **stated
        )

    def refund(self, refund_id: str, charge_id: str, amount: int, **stated: Any) -> "World":
        row = told(
            "refund",
            refund_id,
            charge_id=charge_id,
            created_at=days_ago(10),
            status="succeeded",
            amount_minor=amount,
            reporting_category="refund",
        )
        self.refunds.append(row | stated)
        return self

    def dispute(
        self, dispute_id: str, charge_id: str, amount: int, status: str, **stated: Any
    ) -> "World":
        row = told(
            "dispute",
            dispute_id,
            charge_id=charge_id,
            created_at=days_ago(8),
            status=status,
            amount_minor=amount,
        )
        self.disputes.append(row | stated)
        return self

    def intent(
        self,
        intent_id: str,
        names: str | None = None,
        workspace: str | None = None,
        **stated: Any,
    ) -> "World":
        """A PaymentIntent, and what its metadata says."""
        row = told(
            "payment_intent",
            intent_id,
            status="succeeded",
            metadata=metadata(names, workspace),
        )
        self.intents.append(row | stated)
        return self

    def bill(
        self,
        stripe_invoice_id: str = "in_1",
        total: int = 1000,
        *,
        names: str | None = None,
        workspace: str | None = None,
        subscription: str = "{}",
        lines: Sequence[str] = (),
        **stated: Any,
    ) -> "World":
        """A Stripe invoice; `subscription` and `lines`: metadata as JSON."""
        row = told(
            "stripe_invoice",
            stripe_invoice_id,
            status="paid",
            total_minor=total,
            amount_due_minor=total,
            amount_paid_minor=total,
            pre_payment_credit_notes_minor=0,
            starting_balance_minor=0,
            ending_balance_minor=0,
            metadata=metadata(names, workspace),
            subscription_metadata=subscription,
            line_metadata=f"[{', '.join(lines)}]",
        )
        self.bills.append(row | stated)
        return self

    def paid(
        self,
        stripe_invoice_id: str,
        *,
        intent: str | None = None,
        charge: str | None = None,
        record: str | None = None,
        amount: int | None = 1000,
        status: str = "paid",
        **stated: Any,
    ) -> "World":
        """An InvoicePayment (since basil): by a PaymentIntent, a charge without one, or past
        Stripe.
        """
        kinds = {"payment_intent": intent, "charge": charge, "payment_record": record}
        [(kind, by)] = [(kind, by) for kind, by in kinds.items() if by]
        row = told(
            "invoice_payment",
            f"inpay_{len(self.payments) + 1}",
            stripe_invoice_id=stripe_invoice_id,
            status=status,
            payment_type=kind,
            amount_paid_minor=amount,
        )
        self.payments.append(row | {f"{kind}_id": by} | stated)
        return self

    def report(self, charge_id: str, stripe_invoice_id: str) -> "World":
        """A line of an itemized report."""
        row = told(
            "report_line",
            f"report:{len(self.reports) + 1}",
            origin="csv",
            charge_id=charge_id,
            stripe_invoice_id=stripe_invoice_id,
        )
        self.reports.append(
            {name: value for name, value in row.items() if name not in ("livemode", "currency")}
        )
        return self

    def raw(self) -> dict[str, list[Row]]:
        return {
            "raw.invoices": self.older + self.invoices,
            "raw.stripe_balance_transactions": self.movements,
            "raw.stripe_charges": self.charges,
            "raw.stripe_refunds": self.refunds,
            "raw.stripe_disputes": self.disputes,
            "raw.stripe_payment_intents": self.intents,
            "raw.stripe_invoices": self.bills,
            "raw.stripe_invoice_payments": self.payments,
            "raw.stripe_report_lines": self.reports,
        }


def as_the_oracle_sees(world: World) -> Account:
    """The same objects; of each the only version there is."""
    charges = {
        row["charge_id"]: Charge(
            charge_id=row["charge_id"],
            created_at=row["created_at"],
            currency=row["currency"],
            livemode=row["livemode"],
            status=row["status"],
            amount=row["amount_minor"],
            amount_captured=row["amount_captured_minor"],
            captured=row["captured"],
            refunded=row["refunded"],
            metadata=json.loads(row["metadata"]),
            payment_intent_id=row.get("payment_intent_id"),
            stripe_invoice_id=row.get("stripe_invoice_id"),
        )
        for row in world.charges
    }
    for row in world.refunds:
        if row["reporting_category"] != "partial_capture_reversal":
            charges[row["charge_id"]].refunds.append(
                (row["created_at"], row["status"], row["amount_minor"])
            )
    for row in world.disputes:
        charges[row["charge_id"]].disputes.append(
            (row["created_at"], row["status"], row["amount_minor"])
        )
    return Account(
        invoices=[
            Invoice(
                invoice_id=row["infery_invoice_id"],
                workspace_id=row["workspace_id"],
                kind=row["kind"],
                issued_at=row["issued_at"],
                currency=row["currency"],
                total=row["total_minor"],
                status=row["status"].lower(),
                payment_intent_id=row.get("payment_intent_id"),
                stripe_invoice_id=row.get("stripe_invoice_id"),
            )
            for row in world.invoices
        ],
        charges=list(charges.values()),
        payment_intents=[
            PaymentIntent(
                payment_intent_id=row["payment_intent_id"],
                livemode=row["livemode"],
                metadata=json.loads(row["metadata"]),
                stripe_invoice_id=row.get("stripe_invoice_id"),
            )
            for row in world.intents
        ],
        stripe_invoices=[
            StripeInvoice(
                stripe_invoice_id=row["stripe_invoice_id"],
                created_at=row["created_at"],
                livemode=row["livemode"],
                status=row["status"],
                currency=row["currency"],
                total=row["total_minor"],
                metadata=json.loads(row["metadata"]),
                subscription_metadata=json.loads(row["subscription_metadata"]),
                line_metadata=json.loads(row["line_metadata"]),
                pre_payment_credit_notes=row["pre_payment_credit_notes_minor"],
                starting_balance=row["starting_balance_minor"],
                ending_balance=row["ending_balance_minor"],
                amount_due=row["amount_due_minor"],
                amount_paid=row["amount_paid_minor"],
                amount_paid_off_stripe=row.get("amount_paid_off_stripe_minor"),
                charge_id=row.get("charge_id"),
                payment_intent_id=row.get("payment_intent_id"),
                paid_out_of_band=row.get("paid_out_of_band"),
            )
            for row in world.bills
        ],
        invoice_payments=[
            InvoicePayment(
                stripe_invoice_id=row["stripe_invoice_id"],
                livemode=row["livemode"],
                status=row["status"],
                kind=row["payment_type"],
                paid_by=row[f"{row['payment_type']}_id"],
                amount_paid=row["amount_paid_minor"],
            )
            for row in world.payments
        ],
        reports=[(row["charge_id"], row["stripe_invoice_id"]) for row in world.reports],
    )


@dataclass
class Answer:
    rows: dict[str, Row]
    roles: dict[tuple[str, str], tuple[str, str]]
    complaints: list[Row]
    ledger: dict[str, Row] = field(default_factory=dict)  # where credits were asked for
    backing: dict[str, Row] = field(default_factory=dict)

    def status(self, item_id: str) -> str:
        return str(self.rows[item_id]["status"])

    def reason(self, item_id: str) -> str:
        return str(self.rows[item_id]["reason"])


TABLES = ("marts.invoice_reconciliation", "marts.invoice_charges", "marts.invoices")
CLAIMS = ("invoice_reconciliation__", "invoices__", "credit_ledger__", "credit_backing__")
CREDITS = ("marts.credit_ledger", "marts.credit_backing")
USAGE = "marts.usage_by_key"  # nobody spends anything here


def chain(models: Models, tables: Iterable[str] = TABLES) -> list[str]:
    """The models between raw and these tables, each after what it reads."""
    wanted: set[str] = set()

    def want(name: str) -> None:
        if name in models.models and name not in wanted and name != USAGE:
            wanted.add(name)
            for table in models.models[name].inputs:
                want(table)

    for table in tables:
        want(table)
    return [model.name for model in models.order if model.name in wanted]


def reconciled(
    models: Models,
    world: World,
    *,
    today: date = TODAY,
    is_checked: bool = False,
    with_credits: bool = False,
    **settings: object,
) -> Answer:
    """Runs every model between raw and the mart; `is_checked`: also every claim, and every
    grain; `with_credits`: also the ledger and what backs it.
    """
    with rolled_back() as connection:
        tables = raw_tables()
        claims = {
            name: claim
            for name, claim in models.claims.items()
            if is_checked and name.startswith(CLAIMS[: 4 if with_credits else 2])
        }
        asked = {*TABLES, *(CREDITS if with_credits else ())}
        names = chain(models, asked.union(*(claim.inputs for claim in claims.values())))
        stated = world.raw()
        read = {table for name in names for table in models.models[name].inputs}
        for name in read & tables.keys():
            kinds = {column: kind for column, (kind, _) in tables[name].columns.items()}
            connection.register("rows", tabular.arrow(stated.get(name, []), kinds))
            connection.execute(f"create table {name} as from rows")
        connection.execute(f"create table {USAGE} as {empty_select(models.types(USAGE))}")
        clock = Clock.at(day=today)
        values = Settings().parameters() | clock.parameters() | settings

        def bound(parameters: Iterable[str]) -> dict[str, object]:
            return {name: values[name] for name in parameters}

        for name in names:
            model = models.models[name]
            connection.execute(f"create table {name} as {model.sql}", bound(model.parameters))
            if is_checked:
                assert _repeated(connection, name, model.grain) == [], f"{name} repeats its grain"
        judged = connection.sql("from marts.invoice_reconciliation").to_arrow_table().to_pylist()
        roles = connection.sql("from marts.invoice_charges").to_arrow_table().to_pylist()
        ledger, backing = (
            connection.sql(f"from {table}").to_arrow_table().to_pylist() if with_credits else []
            for table in CREDITS
        )
        complaints: list[Row] = []
        for name, claim in claims.items():
            found = connection.sql(
                claim.sql, params=bound(claim.parameters) or None
            ).to_arrow_table()
            complaints += [row | {"check": name} for row in found.to_pylist()]
    return Answer(
        {row["item_id"]: row for row in judged},
        {(row["charge_id"], row["invoice_id"]): (row["role"], row["matched_by"]) for row in roles},
        complaints,
        {row["movement_id"]: row for row in ledger},
        {row["item_id"]: row for row in backing},
    )


def _repeated(connection: Any, table: str, grain: Sequence[str]) -> list[Any]:
    columns = ", ".join(grain)
    found: list[Any] = connection.sql(
        f"select {columns} from {table} group by {columns} having count(*) > 1"
    ).fetchall()
    return found
