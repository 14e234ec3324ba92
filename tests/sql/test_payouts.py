"""What a payout is made of: movements of the balance at Stripe, tied to charges, and so to invoices
and workspaces; what Stripe kept and what reached the bank.
"""

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

Row = dict[str, Any]
Run = Callable[..., list[Row]]
NOON = datetime(2026, 11, 18, 12)


def movement(name: str, category: str | None, amount: int, fee: int = 0, **stated: Any) -> Row:
    """A balance transaction, settled in gbp."""
    return {
        "balance_transaction_id": name,
        "reporting_category": category,
        "type": category,
        "created_at": NOON,
        "amount_minor": amount,
        "fee_minor": fee,
        "net_minor": amount - fee,
        "currency": "gbp",
        "payout_id": "po_1",
    } | stated


CHARGE = {"charge_id": "ch_1", "state": "settled"}
LINKED = {"charge_id": "ch_1", "invoice_id": "inv_1", "role": "settled"}
INVOICE = {"infery_invoice_id": "inv_1", "workspace_id": "ws_1"}


def items(run_model: Run, movements: list[Row], **tables: list[Row]) -> dict[str, Row]:
    stated = {
        "staging.balance_transactions": movements,
        "staging.charges": [CHARGE],
        "marts.invoice_charges": [LINKED],
        "staging.invoices": [INVOICE],
    } | {name.replace("__", "."): rows for name, rows in tables.items()}
    return {row["balance_transaction_id"]: row for row in run_model("marts.payout_items", stated)}


def test_a_charge_its_refund_and_its_dispute_belong_to_the_invoice_and_the_workspace(
    run_model: Run,
) -> None:
    found = items(
        run_model,
        [
            movement("txn_1", "charge", 1000, 30, source_id="ch_1"),
            movement("txn_2", "refund", -400, source_id="re_1"),
            movement("txn_3", "dispute", -600, 15, source_id="dp_1"),
        ],
        staging__refunds=[{"refund_id": "re_1", "charge_id": "ch_1", "origin": "api"}],
        staging__disputes=[{"dispute_id": "dp_1", "charge_id": "ch_1", "origin": "api"}],
    )

    assert {
        (row["charge_id"], row["invoice_id"], row["workspace_id"]) for row in found.values()
    } == {("ch_1", "inv_1", "ws_1")}


def test_what_only_a_report_ties_to_a_charge_belongs_to_it_too(run_model: Run) -> None:
    found = items(
        run_model,
        [movement("txn_1", "refund", -400, source_id="re_unread")],
        raw__stripe_report_lines=[{"balance_transaction_id": "txn_1", "charge_id": "ch_1"}],
    )

    assert (found["txn_1"]["charge_id"], found["txn_1"]["invoice_id"]) == ("ch_1", "inv_1")


def test_a_charge_of_no_invoice_has_the_workspace_that_it_claims(run_model: Run) -> None:
    found = items(
        run_model,
        [movement("txn_1", "charge", 1000, source_id="ch_1")],
        marts__invoice_charges=[],
        staging__charge_ladders=[{"charge_id": "ch_1", "claimed_workspace_id": "ws_9"}],
    )

    assert (found["txn_1"]["invoice_id"], found["txn_1"]["workspace_id"]) == (None, "ws_9")


def test_a_contradiction_ties_no_movement_to_an_invoice(run_model: Run) -> None:
    conflicts = [LINKED | {"invoice_id": name, "role": "conflict"} for name in ("inv_1", "inv_2")]

    found = items(
        run_model,
        [movement("txn_1", "charge", 1000, source_id="ch_1")],
        marts__invoice_charges=conflicts,
    )

    assert [row["invoice_id"] for row in found.values()] == [None]


def test_a_payouts_own_movement_is_not_among_what_went_out_with_it(run_model: Run) -> None:
    found = items(
        run_model,
        [
            movement("txn_1", "charge", 1000, source_id="ch_1"),
            movement("txn_2", "payout", -1000, source_id="po_1"),
            movement("txn_3", None, -1000, source_id="po_1"),
        ],
        staging__payouts=[{"payout_id": "po_1"}],
    )

    assert list(found) == ["txn_1"]


def payout(run_model: Run, rows: list[Row], **stated: Any) -> Row:
    told = {
        "payout_id": "po_1",
        "created_at": NOON,
        "automatic": True,
        "currency": "gbp",
        "amount_minor": 0,
    } | stated
    [found] = run_model("marts.payouts", {"marts.payout_items": rows, "staging.payouts": [told]})
    return found


def item(name: str, category: str, amount: int, fee: int = 0, **stated: Any) -> Row:
    return {
        "balance_transaction_id": name,
        "payout_id": "po_1",
        "category": category,
        "amount_minor": amount,
        "fee_minor": fee,
        "net_minor": amount - fee,
        "currency": "gbp",
    } | stated


def test_what_came_what_went_back_what_stripe_kept_and_what_reached_the_bank(
    run_model: Run,
) -> None:
    row = payout(
        run_model,
        [
            item("txn_1", "charge", 5000, 150, charge_id="ch_1", invoice_id="inv_1"),
            item("txn_2", "charge", 1000, 30, charge_id="ch_2"),
            item("txn_3", "refund", -700, charge_id="ch_1", invoice_id="inv_1"),
            item("txn_4", "refund_failure", 200, charge_id="ch_1", invoice_id="inv_1"),
            item("txn_5", "dispute", -1000, 15, charge_id="ch_2"),
            item("txn_6", "dispute_reversal", 400, charge_id="ch_2"),
            item("txn_7", "fee", -50),
            item("txn_8", "reserve_transaction", -100),
        ],
        amount_minor=4555,
    )

    amounts = ("charged", "refunded", "disputed", "fee", "other", "net", "difference")
    assert {name: row[f"{name}_minor"] for name in amounts} == {
        "charged": 6000,
        "refunded": 500,
        "disputed": 600,
        "fee": 245,
        "other": -100,
        "net": 4555,
        "difference": 0,
    }
    assert (row["movement_count"], row["charge_count"], row["invoice_count"]) == (8, 2, 1)


def test_what_the_bank_got_beyond_the_list_is_unexplained(run_model: Run) -> None:
    row = payout(run_model, [item("txn_1", "charge", 1000, 30)], amount_minor=1000)

    assert (row["net_minor"], row["difference_minor"]) == (970, 30)


def test_a_manual_payout_has_no_list_and_no_sums(run_model: Run) -> None:
    row = payout(run_model, [], automatic=False, amount_minor=1000)

    assert (row["amount_minor"], row["net_minor"], row["difference_minor"]) == (1000, None, None)


def test_the_movements_of_one_payout_enter_no_other(run_model: Run) -> None:
    row = payout(run_model, [item("txn_1", "charge", 1000, payout_id="po_2")])

    assert row["movement_count"] is None


def test_an_automatic_payout_that_is_not_its_list_stops_the_night(run_model: Run) -> None:
    claim = "payouts__are_the_net_of_their_movements"
    done = {"payout_id": "po_1", "automatic": True, "reconciliation_status": "completed"}
    rows = [{"payout_id": "po_1", "amount_minor": 1000, "net_minor": 970}]

    def complaints(**stated: Any) -> int:
        told = {"marts.payouts": rows, "staging.payouts": [done | stated]}
        return len(run_model(claim, told, day=date(2026, 11, 20)))

    assert complaints() == 1
    assert complaints(reconciliation_status="in_progress") == 0
    assert complaints(automatic=False) == 0
