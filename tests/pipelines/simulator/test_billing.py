"""The planted account: every disagreement is there, and nothing else disagrees.

`status_of` is a second reading of the reconciliation's rules, in plain Python, as far as charges,
refunds and disputes decide them.
"""

import csv
import json
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.simulator.billing import CASES, PENDING_DAYS, SETTLE_DAYS
from pipelines.simulator.gateway import simulate

LAST_DAY = date(2026, 11, 20)
Row = dict[str, Any]


@pytest.fixture(scope="module", params=[1, 21])
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("billing")
    simulate(folder, days=request.param, requests_per_day=600, seed=2, last_day=LAST_DAY)
    return folder


def invoices(out: Path) -> list[Row]:
    with (out / "landing/invoices/invoices.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def objects(out: Path) -> dict[str, list[Row]]:
    account: Row = json.loads((out / "stripe_account.json").read_text())
    held: dict[str, list[Row]] = account["objects"]
    return held


def truth(out: Path) -> Row:
    told: Row = json.loads((out / "truth.json").read_text())
    return told


def age(created: int) -> int:
    return (LAST_DAY - datetime.fromtimestamp(created, UTC).date()).days


def state_of(charge: Row) -> str:
    if charge["status"] == "succeeded" and charge["captured"] and charge["amount_captured"] > 0:
        return "settled"
    return "waiting" if charge["status"] == "pending" else "dead"


def status_of(invoice: Row | None, charges: list[Row], held: dict[str, list[Row]]) -> str:
    settled = [charge for charge in charges if state_of(charge) == "settled"]
    waiting = [charge for charge in charges if state_of(charge) == "waiting"]
    ids = {charge["id"] for charge in settled}
    refunds = [refund for refund in held["refund"] if refund["charge"] in ids]
    disputes = {d["status"] for d in held["dispute"] if d["charge"] in ids}
    received = sum(charge["amount_captured"] for charge in settled)
    refunded = sum(r["amount"] for r in refunds if r["status"] not in ("failed", "canceled"))
    is_void = invoice is not None and invoice["status"] == "void"
    expected = 0 if invoice is None or is_void else int(invoice["total_minor"])
    claims = {charge["metadata"].get("workspace_id") for charge in settled + waiting}
    fresh = any(age(charge["created"]) <= PENDING_DAYS for charge in waiting)
    if invoice is not None:
        young = age(int(datetime.fromisoformat(invoice["issued_at"]).timestamp())) <= SETTLE_DAYS
        if claims - {None, invoice["workspace_id"]}:
            return "workspace_mismatch"
        assert all(charge["currency"] == invoice["currency"] for charge in charges)
    else:
        young = age(charges[0]["created"]) <= SETTLE_DAYS
    if is_void and received > refunded:
        return "void_but_paid"
    if disputes & {"needs_response", "under_review"}:
        return "disputed_open"
    if "lost" in disputes:
        return "dispute_lost"
    if any(refund["status"] == "failed" for refund in refunds):
        return "refund_failed"
    if refunded and received >= expected and received <= refunded:
        return "refunded_full"
    if invoice is None:
        return "in_flight" if young else "missing_in_gateway"
    if invoice["status"] == "paid" and 0 < received < expected and not fresh:
        return "amount_mismatch"
    if received - refunded > expected:
        return "duplicate_charge" if len(settled) > 1 else "overpaid"
    if received < expected and (fresh or (received == 0 and young)):
        return "in_flight"
    if expected and not received:
        return "missing_in_stripe"
    if received - refunded < expected:
        return "refunded_partial"
    is_by_the_rule = all("workspace_id" in charge["metadata"] for charge in settled)
    return "matched" if is_by_the_rule else "matched_by_fallback"


def test_every_invoice_and_every_lone_charge_gets_the_status_that_was_planted(out: Path) -> None:
    held, bills = objects(out), {row["infery_invoice_id"]: row for row in invoices(out)}
    linked: dict[str, list[Row]] = {invoice_id: [] for invoice_id in bills}
    found = {}
    for charge in held["charge"]:
        invoice_id = charge["metadata"].get("infery_invoice_id")
        if not charge["livemode"]:
            found[charge["id"]] = "test_mode"
        elif invoice_id in linked:
            linked[invoice_id].append(charge)
        else:
            found[charge["id"]] = status_of(None, [charge], held)
    found |= {name: status_of(bills[name], charges, held) for name, charges in linked.items()}

    assert found == {row["item_id"]: row["status"] for row in truth(out)["reconciliation"]}


def test_each_case_is_planted_and_the_rest_is_in_order(out: Path) -> None:
    rows = truth(out)["reconciliation"]
    planted = Counter(row["case"] for row in rows if row["item_kind"] == "invoice")
    plain = {row["status"] for row in rows if row["case"] == "plain"}

    assert planted - Counter(plain=planted["plain"]) == Counter(case for case, _, _ in CASES)
    assert plain == {"matched"}
    assert [row["case"] for row in rows if row["item_kind"] == "charge"] == [
        "only_a_test_charge",
        "unknown_invoice_on_charge",
        "no_metadata_on_charge",
    ]


def test_invoices_add_up_and_only_the_british_one_bears_vat(out: Path) -> None:
    for row in invoices(out):
        net, vat, total = (int(row[name]) for name in ("net_minor", "vat_minor", "total_minor"))
        assert net + vat == total
        assert (vat == net * 20 // 100) if row["workspace_id"] == "ws_harbour" else vat == 0


def test_no_workspace_runs_out_of_credits(out: Path) -> None:
    told = truth(out)
    granted: dict[str, Decimal] = defaultdict(Decimal)
    for row in invoices(out):
        if row["status"] == "paid":
            granted[row["workspace_id"]] += Decimal(row["credits"])

    for row in told["by_workspace"]:
        assert granted[row["workspace_id"]] >= Decimal(row["credits"])


def test_balance_transactions_add_up(out: Path) -> None:
    held = objects(out)
    by_source: dict[str, list[Row]] = defaultdict(list)
    for transaction in held["balance_transaction"]:
        by_source[transaction["source"]].append(transaction)
        assert transaction["net"] == transaction["amount"] - transaction["fee"]
        assert transaction["fee"] == sum(fee["amount"] for fee in transaction["fee_details"])

    for charge in held["charge"]:
        is_settled = state_of(charge) == "settled"
        assert [row["id"] for row in by_source[charge["id"]]] == (
            [charge["balance_transaction"]] if is_settled else []
        )
    (failed,) = (refund for refund in held["refund"] if refund["status"] == "failed")
    assert sum(row["amount"] for row in by_source[failed["id"]]) == 0


def test_an_automatic_payout_is_the_sum_of_what_went_out_with_it(out: Path) -> None:
    held = objects(out)
    assert held["payout"]
    for payout in held["payout"]:
        inside = [
            row
            for row in held["balance_transaction"]
            if row.get("_payout") == payout["id"] and row["source"] != payout["id"]
        ]
        assert payout["amount"] == sum(row["net"] for row in inside) > 0


def test_each_renewal_is_billed_by_stripe_too_and_paid_by_its_charge(out: Path) -> None:
    held = objects(out)
    bills = {row["id"]: row for row in held["invoice"]}
    paid_with = {
        row["invoice"]: row["payment"]["payment_intent"] for row in held["invoice_payment"]
    }
    renewals = [row for row in invoices(out) if row["kind"] == "subscription"]
    assert len(renewals) == len(bills) == len(paid_with) > 0
    for row in renewals:
        bill = bills[row["stripe_invoice_id"]]
        assert (bill["total"], bill["status"]) == (int(row["total_minor"]), "paid")
        assert sum(tax["amount"] for tax in bill["total_taxes"]) == int(row["vat_minor"])
        assert bill["metadata"]["infery_invoice_id"] == row["infery_invoice_id"]
        assert paid_with[bill["id"]] == row["payment_intent_id"]


def test_each_customer_of_a_charge_is_there(out: Path) -> None:
    held = objects(out)

    known = {row["id"] for row in held["customer"]}
    assert {row["customer"] for row in held["charge"]} <= known


def test_nothing_happens_after_the_last_day(out: Path) -> None:
    midnight = datetime(LAST_DAY.year, LAST_DAY.month, LAST_DAY.day, tzinfo=UTC)
    end = (midnight + timedelta(days=1)).timestamp()

    assert all(row["created"] < end for rows in objects(out).values() for row in rows)
