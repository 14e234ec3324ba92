"""The simulated gateway's invoices, the Stripe charges behind them, and the planted disagreements.

Each case states the reconciliation status it must get; nothing here computes one.
"""

import hashlib
import random
import string
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pipelines.simulator import stripe_account
from pipelines.simulator.stripe_account import Object

SETTLE_DAYS, PENDING_DAYS = 3, 14
HISTORY_DAYS = 45  # invoices reach at least this far back, however short the traffic is

Row = dict[str, Any]

BILLION = 10**9
PLANS = {
    "Team": (3_000, 29_00),
    "Pro": (9_000, 85_00),
    "Scale": (15_000, 139_00),
}  # credits, net minor
PACKS = {
    1_000: 12_00,
    2_500: 28_00,
    10_000: 105_00,
    50_000: 500_00,
    250_000: 2_400_00,
    2_000_000: 18_000_00,
}
PLANTED_PACK = 1_000
PENCE_PER_UNIT = {"gbp": 100, "usd": 79, "eur": 86}  # the account settles in gbp

# Each case: its name, how many days before the last its invoice is dated, the status it must get.
# All but the last are older than SETTLE_DAYS; a pending debit waits for PENDING_DAYS.
CASES = (
    ("declined_then_paid", 31, "matched"),
    ("never_charged", 17, "missing_in_stripe"),
    ("only_a_test_charge", 12, "missing_in_stripe"),
    ("charged_twice", 22, "duplicate_charge"),
    ("charged_too_little", 15, "amount_mismatch"),
    ("other_workspace", 26, "workspace_mismatch"),
    ("no_workspace_on_charge", 19, "matched_by_fallback"),
    ("no_workspace_on_charge", 9, "matched_by_fallback"),
    ("refunded_in_part", 28, "refunded_partial"),
    ("refunded", 24, "refunded_full"),
    ("refund_failed", 14, "refund_failed"),
    ("disputed", 11, "disputed_open"),
    ("dispute_lost", 38, "dispute_lost"),
    ("void_yet_charged", 20, "void_but_paid"),
    ("debit_pending", 6, "in_flight"),
    ("just_issued", 1, "in_flight"),
)


def workspace(
    workspace_id: str, name: str, time_zone: str, plan: str, anchor_day: int, currency: str
) -> Row:
    """A workspace of the directory, and how it is billed."""
    return {
        "workspace_id": workspace_id,
        "name": name,
        "time_zone": time_zone,
        "plan": plan,
        "monthly_allowance_credits": PLANS[plan][0],
        "anchor_day": anchor_day,
        "currency": currency,
        "billing_email": f"billing@{workspace_id.removeprefix('ws_')}.example",
    }


def cycle_start(day: date, anchor_day: int) -> date:
    """The first day of the billing cycle that contains `day`; anchors lie within every month."""
    month = day if day.day >= anchor_day else day.replace(day=1) - timedelta(days=1)
    return month.replace(day=anchor_day)


def bill(
    workspaces: list[Row],
    used: dict[tuple[str, date], int],
    first_day: date,
    last_day: date,
    seed: int,
) -> tuple[list[Row], Object, list[Row]]:
    """The gateway's invoices, the Stripe account, and the status of each invoice and lone charge.

    used: billionths of a credit by workspace and UTC day; a workspace that runs low buys a pack.
    """
    rng = random.Random(f"{seed}/billing")
    since = min(first_day, last_day - timedelta(days=HISTORY_DAYS - 1))
    orders = _subscriptions(workspaces, since, last_day) + _planted(workspaces, last_day)
    orders += _top_ups(workspaces, orders, used, first_day, last_day)
    orders.sort(
        key=lambda order: (
            order["date"],
            order["workspace"]["workspace_id"],
            order["kind"],
            order["case"],
        )
    )

    books = _Books(rng)
    invoices, statuses = [], []
    for number, order in enumerate(orders, 1):
        invoice = _invoice(order, number, books)
        invoices.append(invoice)
        books.settle(invoice, order)
        statuses.append(
            {
                "item_id": invoice["infery_invoice_id"],
                "item_kind": "invoice",
                "status": order["status"],
                "case": order["case"],
            }
        )
    books.charge_nobody_billed(workspaces, last_day)
    books.name_customers(workspaces, _epoch(since - timedelta(days=30)))
    books.pay_out(since, last_day)
    # The account's clock is midnight after the last day. The test charge is served to a live key.
    as_of = _epoch(last_day + timedelta(days=1))
    account = stripe_account.account(books.objects, as_of=as_of, mixed_modes=True)
    return invoices, account, statuses + books.lone_charges


def _order(
    workspace: Row, kind: str, day: date, credits: int, net_minor: int, case: str, status: str
) -> Row:
    return {
        "workspace": workspace,
        "kind": kind,
        "date": day,
        "credits": credits,
        "net_minor": net_minor,
        "case": case,
        "status": status,
    }


def _subscriptions(workspaces: list[Row], since: date, last_day: date) -> list[Row]:
    orders = []
    for workspace in workspaces:
        credits, net_minor = PLANS[workspace["plan"]]
        day = cycle_start(since, workspace["anchor_day"])
        while day <= last_day:
            orders.append(
                _order(workspace, "subscription", day, credits, net_minor, "plain", "matched")
            )
            day = cycle_start(day + timedelta(days=31), workspace["anchor_day"])
    return orders


def _planted(workspaces: list[Row], last_day: date) -> list[Row]:
    return [
        _order(
            workspaces[place % len(workspaces)],
            "topup",
            last_day - timedelta(days=days_ago),
            PLANTED_PACK,
            PACKS[PLANTED_PACK],
            case,
            status,
        )
        for place, (case, days_ago, status) in enumerate(CASES)
    ]


def _top_ups(
    workspaces: list[Row],
    orders: list[Row],
    used: dict[tuple[str, date], int],
    first_day: date,
    last_day: date,
) -> list[Row]:
    """A pack whenever a workspace has less than two days of credits left."""
    days = [first_day + timedelta(days=n) for n in range((last_day - first_day).days + 1)]
    bought = []
    for workspace in workspaces:
        name = workspace["workspace_id"]
        mean = sum(used.get((name, day), 0) for day in days) // len(days)
        pack = next((size for size in PACKS if size * BILLION > 4 * mean), max(PACKS))
        grants = [
            (order["date"], order["credits"] * BILLION)
            for order in orders
            if order["workspace"] is workspace and _gateway_status(order) == "paid"
        ]
        balance = sum(granted for day, granted in grants if day < first_day)
        for day in days:
            balance += sum(granted for on, granted in grants if on == day)
            while balance < 2 * mean:
                bought.append(
                    _order(workspace, "topup", day, pack, PACKS[pack], "plain", "matched")
                )
                balance += pack * BILLION
            balance -= used.get((name, day), 0)
    return bought


def _gateway_status(order: Row) -> str:
    return {"void_yet_charged": "void", "debit_pending": "open", "just_issued": "open"}.get(
        order["case"], "paid"
    )


def _invoice(order: Row, number: int, books: "_Books") -> Row:
    workspace, day = order["workspace"], order["date"]
    net_minor = order["net_minor"]
    # UK VAT is 20 %, to the nearest minor unit; the other workspaces are outside its scope.
    vat_minor = (net_minor * 20 + 50) // 100 if workspace["currency"] == "gbp" else 0
    hour = 0 if order["kind"] == "subscription" else books.rng.randrange(8, 18)
    issued_at = datetime(day.year, day.month, day.day, hour, books.rng.randrange(60), tzinfo=UTC)
    invoice_id = f"INF-{day:%Y%m}-{number:04d}"
    return {
        "infery_invoice_id": invoice_id,
        "workspace_id": workspace["workspace_id"],
        "kind": order["kind"],
        "issued_at": f"{issued_at:%Y-%m-%dT%H:%M:%SZ}",
        "currency": workspace["currency"],
        "net_minor": net_minor,
        "vat_minor": vat_minor,
        "total_minor": net_minor + vat_minor,
        "credits": order["credits"],
        "payment_intent_id": books.new_id("pi_3"),
        "stripe_invoice_id": books.new_id("in_1"),
        "status": _gateway_status(order),
        "pdf_url": f"https://billing.infery.example/invoices/{invoice_id}.pdf",
        "receipt_url": f"https://receipts.stripe.example/{invoice_id}",
    }


class _Books:
    """The Stripe account as it fills up."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        kinds = (
            *("charge", "refund", "dispute", "balance_transaction", "payment_intent"),
            *("invoice", "invoice_payment", "payout", "customer"),
        )
        self.objects: dict[str, list[Object]] = {kind: [] for kind in kinds}
        self.lone_charges: list[Row] = []

    def new_id(self, prefix: str) -> str:
        return prefix + "".join(self.rng.choices(string.ascii_letters + string.digits, k=23))

    def settle(self, invoice: Row, order: Row) -> None:
        """Charges an invoice, as its case has it."""
        total, case = invoice["total_minor"], order["case"]
        metadata = {
            "workspace_id": invoice["workspace_id"],
            "infery_invoice_id": invoice["infery_invoice_id"],
        }
        issued = int(datetime.fromisoformat(invoice["issued_at"]).timestamp())
        at = issued + 95

        if case == "never_charged":
            return
        if case == "just_issued":
            self._payment_intent(invoice, metadata, issued)
            return
        if case == "only_a_test_charge":
            test = self._charge(invoice, metadata, at, total, livemode=False)
            self._alone(test, "test_mode", case)
            return
        if case == "debit_pending":
            self._charge(invoice, metadata, at, total, status="pending")
            return
        if case == "declined_then_paid":
            self._charge(invoice, metadata, at - 60, total, status="failed")
        if case == "other_workspace":
            metadata["workspace_id"] = (
                "ws_kaveri" if invoice["workspace_id"] != "ws_kaveri" else "ws_fjord"
            )
        if case == "no_workspace_on_charge":
            del metadata["workspace_id"]
        if case == "charged_too_little":
            total = invoice["net_minor"] - 2_00
        charge = self._charge(invoice, metadata, at, total)
        if order["kind"] == "subscription":
            self._renewal(invoice, metadata, charge, issued)
        if case == "charged_twice":
            again = invoice | {"payment_intent_id": self.new_id("pi_3")}
            self._charge(again, metadata, at + 41, total)
        elif case == "refunded_in_part":
            self._refund(charge, at + 3 * 86_400, total // 4)
        elif case == "refunded":
            self._refund(charge, at + 2 * 86_400, total)
        elif case == "refund_failed":
            self._refund(charge, at + 4 * 86_400, total, fails=True)
        elif case in ("disputed", "dispute_lost"):
            self._dispute(
                charge, at + 5 * 86_400, "lost" if case == "dispute_lost" else "needs_response"
            )

    def charge_nobody_billed(self, workspaces: list[Row], last_day: date) -> None:
        """Two charges that no gateway invoice answers for."""
        lost = {"workspace_id": workspaces[1]["workspace_id"], "infery_invoice_id": "INF-LOST-0001"}
        for workspace, days_ago, case, metadata in (
            (workspaces[1], 16, "unknown_invoice_on_charge", lost),
            (workspaces[0], 8, "no_metadata_on_charge", {}),
        ):
            nobodys = {
                "infery_invoice_id": "",
                "workspace_id": workspace["workspace_id"],
                "currency": workspace["currency"],
                "total_minor": 42_00,
                "payment_intent_id": self.new_id("pi_3"),
                "receipt_url": None,
            }
            at = _epoch(last_day - timedelta(days=days_ago)) + 11 * 3600
            charge = self._charge(nobodys, metadata, at, nobodys["total_minor"])
            self._alone(charge, "missing_in_gateway", case)

    def name_customers(self, workspaces: list[Row], since: int) -> None:
        """Each workspace's billing contact."""
        for number, workspace in enumerate(workspaces):
            self.objects["customer"].append(
                stripe_account.customer(
                    id=_customer_id(workspace),
                    created=since + number,
                    currency=workspace["currency"],
                    email=workspace["billing_email"],
                    name=workspace["name"],
                )
            )

    def _renewal(self, invoice: Row, metadata: Row, charge: Object, at: int) -> None:
        """Stripe's own bill of a subscription's renewal, paid by the charge."""
        line = stripe_account.invoice_line(
            id=_id_of("il_1", invoice),
            amount=invoice["net_minor"],
            currency=invoice["currency"],
            invoice=invoice["stripe_invoice_id"],
            metadata={"workspace_id": invoice["workspace_id"]},
        )
        subscription = {
            "subscription": "sub_" + str(invoice["workspace_id"]).removeprefix("ws_").title(),
            "metadata": {"workspace_id": invoice["workspace_id"]},
        }
        bill = stripe_account.invoice(
            id=invoice["stripe_invoice_id"],
            amount_paid=invoice["total_minor"],
            billing_reason="subscription_cycle",
            created=at,
            currency=invoice["currency"],
            customer=_customer_id(invoice),
            ending_balance=0,
            metadata=dict(metadata),
            number=invoice["infery_invoice_id"],
            parent={"type": "subscription_details", "subscription_details": subscription},
            status="paid",
            total=invoice["total_minor"],
            total_excluding_tax=invoice["net_minor"],
            total_taxes=[{"amount": invoice["vat_minor"]}] if invoice["vat_minor"] else [],
        )
        bill["lines"]["data"].append(line)
        bill["status_transitions"] |= {"finalized_at": at, "paid_at": charge["created"]}
        self.objects["invoice"].append(bill)
        self.objects["invoice_payment"].append(
            stripe_account.invoice_payment(
                id=_id_of("inpay_1", invoice),
                amount_paid=invoice["total_minor"],
                amount_requested=invoice["total_minor"],
                created=at,
                currency=invoice["currency"],
                invoice=bill["id"],
                payment={"type": "payment_intent", "payment_intent": charge["payment_intent"]},
                status="paid",
                status_transitions={"canceled_at": None, "paid_at": charge["created"]},
            )
        )

    def pay_out(self, since: date, last_day: date) -> None:
        """Each Monday what is available goes to the bank, and arrives on Wednesday."""
        end = _epoch(last_day + timedelta(days=1))
        monday = since + timedelta(days=-since.weekday() % 7)
        while (at := _epoch(monday) + 3600) < end:
            going = [
                row
                for row in self.objects["balance_transaction"]
                if "_payout" not in row and row["available_on"] <= at and row["type"] != "payout"
            ]
            amount = sum(row["net"] for row in going)
            if amount > 0:
                has_arrived = at + 2 * 86_400 < end
                payout = stripe_account.payout(
                    id=f"po_1Local{monday:%Y%m%d}",
                    amount=amount,
                    arrival_date=at + 2 * 86_400,
                    balance_transaction=f"txn_1Payout{monday:%Y%m%d}",
                    created=at,
                    reconciliation_status="completed" if has_arrived else "in_progress",
                    status="paid" if has_arrived else "in_transit",
                )
                move = stripe_account.balance_transaction(
                    id=payout["balance_transaction"],
                    amount=-amount,
                    available_on=at,
                    created=at,
                    description=payout["description"],
                    reporting_category="payout",
                    source=payout["id"],
                    type="payout",
                )
                self.objects["balance_transaction"].append(move)
                self.objects["payout"].append(payout)
                for row in (*going, move):
                    row["_payout"] = payout["id"]
            monday += timedelta(days=7)

    def _alone(self, charge: Object, status: str, case: str) -> None:
        row = {"item_id": charge["id"], "item_kind": "charge", "status": status, "case": case}
        self.lone_charges.append(row)

    def _payment_intent(self, invoice: Row, metadata: Row, at: int) -> Object:
        """The invoice's intent: made at the first attempt, the same for every further one."""
        intents = self.objects["payment_intent"]
        for intent in intents:
            if intent["id"] == invoice["payment_intent_id"]:
                return intent
        intents.append(
            stripe_account.payment_intent(
                id=invoice["payment_intent_id"],
                amount=invoice["total_minor"],
                client_secret=f"{invoice['payment_intent_id']}_secret_local",
                created=at,
                currency=invoice["currency"],
                customer=_customer_id(invoice),
                metadata=dict(metadata),
                status="requires_payment_method",
            )
        )
        return intents[-1]

    def _charge(
        self,
        invoice: Row,
        metadata: Row,
        at: int,
        amount: int,
        *,
        status: str = "succeeded",
        livemode: bool = True,
    ) -> Object:
        charge = stripe_account.charge(
            id=self.new_id("ch_3"),
            amount=amount,
            amount_captured=0 if status == "failed" else amount,
            captured=status != "failed",
            created=at,
            currency=invoice["currency"],
            customer=_customer_id(invoice),
            description=f"Invoice {invoice['infery_invoice_id']}"
            if invoice["infery_invoice_id"]
            else None,
            livemode=livemode,
            metadata=dict(metadata),
            paid=status != "failed",
            payment_method=self.new_id("pm_1"),
            receipt_url=invoice["receipt_url"],
            status=status,
        )
        intent = self._payment_intent(invoice, metadata, at - 1)
        charge["payment_intent"] = intent["id"]
        intent |= {
            "latest_charge": charge["id"],
            "livemode": livemode,
            "payment_method": charge["payment_method"],
        }
        if status == "failed":
            charge |= {
                "failure_code": "card_declined",
                "failure_message": "Your card was declined.",
            }
            charge["outcome"] |= {
                "network_status": "declined_by_network",
                "reason": "generic_decline",
                "seller_message": "The bank did not return any further details with this decline.",
                "type": "issuer_declined",
            }
        elif status == "pending":
            charge["payment_method_details"] = {
                "bacs_debit": {"last4": "6789"},
                "type": "bacs_debit",
            }
            intent |= {"payment_method_types": ["bacs_debit"], "status": "processing"}
        else:
            charge["balance_transaction"] = self._move(charge, charge, "charge", at, amount)
            intent |= {"amount": amount, "amount_received": amount, "status": "succeeded"}
        self.objects["charge"].append(charge)
        return charge

    def _refund(self, charge: Object, at: int, amount: int, *, fails: bool = False) -> None:
        refund = stripe_account.refund(
            id=self.new_id("re_3"),
            amount=amount,
            charge=charge["id"],
            created=at,
            currency=charge["currency"],
            payment_intent=charge["payment_intent"],
            reason="requested_by_customer",
        )
        refund["balance_transaction"] = self._move(refund, charge, "refund", at, -amount)
        if fails:  # a day later the bank sends the money back
            back = self._move(refund, charge, "refund_failure", at + 86_400, amount)
            refund |= {
                "status": "failed",
                "failure_reason": "lost_or_stolen_card",
                "failure_balance_transaction": back,
            }
        else:
            charge["amount_refunded"] += amount
            charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
        self.objects["refund"].append(refund)

    def _dispute(self, charge: Object, at: int, status: str) -> None:
        dispute = stripe_account.dispute(
            id=self.new_id("dp_1"),
            amount=charge["amount"],
            charge=charge["id"],
            created=at,
            currency=charge["currency"],
            payment_intent=charge["payment_intent"],
            status=status,
        )
        self._move(dispute, charge, "dispute", at, -charge["amount"])
        dispute["balance_transactions"] = [self.objects["balance_transaction"][-1]]
        dispute["evidence_details"]["due_by"] = at + 9 * 86_400
        charge["disputed"] = True
        self.objects["dispute"].append(dispute)

    def _move(self, source: Object, charge: Object, category: str, at: int, amount: int) -> str:
        """Adds a balance transaction in the settlement currency; its id.

        Fees fall on charges and disputes. VAT on a fee is the seller's, not the customer's.
        """
        rate = PENCE_PER_UNIT[charge["currency"]]
        settled = amount * rate // 100
        stripe_fee = settled * 15 // 1000 + 20 if category == "charge" else 0
        stripe_fee = 20_00 if category == "dispute" else stripe_fee
        fees = [
            ("stripe_fee", "Stripe processing fees", stripe_fee),
            ("tax", "VAT", stripe_fee // 5),
        ]
        types = {"dispute": "adjustment", "refund_failure": "refund_failure"}
        transaction = stripe_account.balance_transaction(
            id=self.new_id("txn_3"),
            amount=settled,
            available_on=at + 4 * 86_400,
            created=at,
            description=charge["description"],
            exchange_rate=None if rate == 100 else rate / 100,
            fee=sum(fee for _, _, fee in fees),
            fee_details=[
                {
                    "amount": fee,
                    "application": None,
                    "currency": "gbp",
                    "description": text,
                    "type": kind,
                }
                for kind, text, fee in fees
                if fee
            ],
            reporting_category=category,
            source=source["id"],
            type=types.get(category, category),
        )
        self.objects["balance_transaction"].append(transaction)
        return str(transaction["id"])


def _id_of(prefix: str, invoice: Row) -> str:
    """An id that follows from the invoice's own."""
    digest = hashlib.sha256(f"{prefix} {invoice['infery_invoice_id']}".encode()).hexdigest()
    return f"{prefix}Local{digest[:18]}"


def _customer_id(invoice: Row) -> str:
    return "cus_" + str(invoice["workspace_id"]).removeprefix("ws_").title()


def _epoch(day: date) -> int:
    """Epoch seconds of a UTC day's midnight."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
