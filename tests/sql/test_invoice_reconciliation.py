"""The reconciliation, case by case and world by world: facts/reconciliation.md, from raw rows to
the mart.
"""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from planted_account import CASES, SECTION_6, plant
from reconciliation_oracle import STANDING, Judgement, reconcile
from reconciliation_worlds import (
    NOON,
    TODAY,
    Answer,
    World,
    as_the_oracle_sees,
    days_ago,
    metadata,
    reconciled,
)

from assets.stripe_csv import PLACES
from pipelines.models import Models
from tests.houses import rolled_back

Row = dict[str, Any]
Reconcile = Callable[..., Answer]


@pytest.fixture
def answer(models: Models) -> Reconcile:
    """`answer(world)` runs every model between raw and the mart; `is_checked` also every claim, and
    every grain.
    """

    def run(world: World, **options: Any) -> Answer:
        return reconciled(models, world, **options)

    return run


# ---- the cases people get wrong (section 6) ---------------------------------------------------


def test_two_partial_charges_that_sum_to_the_total_match(answer: Reconcile) -> None:
    world = World().invoice().charge("ch_1", 400).charge("ch_2", 600)

    assert answer(world).status("inv_1") == "matched"


def test_a_part_that_came_by_the_payment_intents_metadata_is_matched_by_fallback(
    answer: Reconcile,
) -> None:
    world = World().invoice().charge("ch_1", 400).silent("ch_2", 600, payment_intent_id="pi_2")
    world.intent("pi_2", "inv_1", "ws_1")

    row = answer(world).rows["inv_1"]

    assert (row["status"], row["matched_by"]) == ("matched_by_fallback", "payment_intent_metadata")


def test_an_invoice_id_without_a_workspace_is_matched_by_fallback(answer: Reconcile) -> None:
    row = answer(World().invoice().charge(workspace=None)).rows["inv_1"]

    assert (row["status"], row["matched_by"]) == ("matched_by_fallback", "charge_invoice_id")


def test_charged_twice_and_one_refunded_in_full_matches_and_says_so(answer: Reconcile) -> None:
    world = World().invoice().charge("ch_1").charge("ch_2").refund("re_1", "ch_2", 1000)

    found = answer(world)

    assert found.status("inv_1") == "matched"
    assert "re_1 (USD 10.00, 2026-11-10)" in found.reason("inv_1")


def test_paid_refunded_and_paid_again_matches(answer: Reconcile) -> None:
    world = World().invoice().charge("ch_1", created_at=days_ago(19)).refund("re_1", "ch_1", 1000)
    world.charge("ch_2", created_at=days_ago(5))

    assert answer(world).status("inv_1") == "matched"


def test_charged_twice_and_the_second_refunded_in_part_is_a_duplicate_charge(
    answer: Reconcile,
) -> None:
    world = World().invoice().charge("ch_1").charge("ch_2").refund("re_1", "ch_2", 300)

    row = answer(world).rows["inv_1"]

    assert (row["status"], row["difference_minor"]) == ("duplicate_charge", 700)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("needs_response", "disputed_open"),
        ("under_review", "disputed_open"),
        ("lost", "dispute_lost"),
        ("won", "refunded_partial"),
    ],
)
def test_a_partial_refund_and_a_dispute_over_the_rest(
    answer: Reconcile, outcome: str, status: str
) -> None:
    world = (
        World().invoice().charge().refund("re_1", "ch_1", 400).dispute("dp_1", "ch_1", 600, outcome)
    )

    assert answer(world).status("inv_1") == status


def test_of_a_won_and_a_lost_dispute_the_lost_one_rules(answer: Reconcile) -> None:
    world = World().invoice().charge()
    world.dispute("dp_1", "ch_1", 1000, "won").dispute("dp_2", "ch_1", 1000, "lost")

    row = answer(world).rows["inv_1"]

    assert (row["status"], row["kept_minor"]) == ("dispute_lost", 0)


def test_a_closed_inquiry_changes_nothing_and_is_mentioned(answer: Reconcile) -> None:
    found = answer(World().invoice().charge().dispute("dp_1", "ch_1", 1000, "warning_closed"))

    assert found.status("inv_1") == "matched"
    assert "inquiry" in found.reason("inv_1")
    assert "dp_1" in found.reason("inv_1")


@pytest.mark.parametrize(("again", "status"), [(1000, "refunded_full"), (400, "refunded_partial")])
def test_a_failed_refund_made_good_by_a_new_one(answer: Reconcile, again: int, status: str) -> None:
    world = World().invoice().charge()
    world.refund("re_1", "ch_1", again, status="failed", created_at=days_ago(12))
    world.refund("re_2", "ch_1", again, created_at=days_ago(6))

    assert answer(world).status("inv_1") == status


@pytest.mark.parametrize(
    ("total", "gateway", "status"),
    [(700, "paid", "matched"), (1000, "paid", "amount_mismatch"), (1000, "open", "partially_paid")],
)
def test_captured_700_of_an_authorised_1000(
    answer: Reconcile, total: int, gateway: str, status: str
) -> None:
    world = World().invoice(total=total, status=gateway)
    world.charge(amount=1000, amount_captured_minor=700, amount_refunded_minor=300)
    world.refund("re_reversal", "ch_1", 300, reporting_category="partial_capture_reversal")

    row = answer(world).rows["inv_1"]

    assert (row["status"], row["charged_minor"], row["refunded_minor"]) == (status, 700, 0)


def test_a_declined_attempt_before_the_charge_that_settled_is_told_of(answer: Reconcile) -> None:
    found = answer(World().invoice().declined("ch_0", created_at=days_ago(20)).charge("ch_1"))

    assert found.status("inv_1") == "matched"
    assert found.roles["ch_0", "inv_1"] == ("dead", "charge_metadata")
    assert "ch_0" in found.reason("inv_1")


def test_only_declined_attempts_ten_days_old_is_missing_in_stripe(answer: Reconcile) -> None:
    found = answer(
        World().invoice(issued_at=days_ago(10)).declined("ch_0", created_at=days_ago(10))
    )

    assert found.status("inv_1") == "missing_in_stripe"
    assert "ch_0" in found.reason("inv_1")


def test_an_open_invoice_nobody_paid_for_ten_days_is_missing_in_stripe(answer: Reconcile) -> None:
    assert (
        answer(World().invoice(status="open", issued_at=days_ago(10))).status("inv_1")
        == "missing_in_stripe"
    )


def test_a_bank_debit_pending_for_ten_days_is_in_flight(answer: Reconcile) -> None:
    assert (
        answer(World().invoice().pending("ch_1", created_at=days_ago(10))).status("inv_1")
        == "in_flight"
    )


@pytest.mark.parametrize(
    ("total", "gateway"), [(0, "paid"), (1000, "draft"), (1000, "void"), (1000, "uncollectible")]
)
def test_nothing_owed_and_no_charge_is_zero_amount(
    answer: Reconcile, total: int, gateway: str
) -> None:
    assert answer(World().invoice(total=total, status=gateway)).status("inv_1") == "zero_amount"


def test_a_void_invoice_charged_and_then_refunded_is_refunded_full(answer: Reconcile) -> None:
    world = World().invoice(status="void").charge().refund("re_1", "ch_1", 1000)

    assert answer(world).status("inv_1") == "refunded_full"


def test_a_charge_and_the_gateway_that_name_different_invoices_conflict_with_both(
    answer: Reconcile,
) -> None:
    world = (
        World()
        .invoice("inv_2", payment_intent_id="pi_1")
        .charge(names="inv_unknown", payment_intent_id="pi_1")
    )

    found = answer(world)

    assert [found.status(name) for name in ("inv_2", "ch_1")] == ["metadata_conflict"] * 2
    assert found.roles["ch_1", "inv_2"] == ("conflict", "gateway_reference")
    assert found.rows["ch_1"]["claimed_invoice_id"] is None


def test_one_payment_intent_on_two_invoices_is_a_conflict_of_all_three(answer: Reconcile) -> None:
    world = World().invoice("inv_1", payment_intent_id="pi_1")
    world.invoice("inv_2", payment_intent_id="pi_1").silent(payment_intent_id="pi_1")

    found = answer(world)

    assert {found.status(name) for name in ("inv_1", "inv_2", "ch_1")} == {"metadata_conflict"}


def test_a_gateway_without_references_is_no_contradiction(answer: Reconcile) -> None:
    found = answer(World().invoice(payment_intent_id=None).charge(payment_intent_id="pi_1"))

    assert found.status("inv_1") == "matched"
    assert found.rows["inv_1"]["payment_intent_id"] == "pi_1"


def test_subscription_metadata_of_last_month_is_a_conflict_and_the_reason_says_why(
    answer: Reconcile,
) -> None:
    world = World().invoice("inv_1").invoice("inv_0").charge(payment_intent_id="pi_1")
    world.bill(names="inv_1", subscription=metadata("inv_0")).paid("in_1", intent="pi_1")

    found = answer(world)

    assert found.status("inv_1") == found.status("inv_0") == "metadata_conflict"
    assert "every renewal" in found.reason("inv_1")


def test_a_test_charge_pays_nothing_and_the_reason_names_it(answer: Reconcile) -> None:
    found = answer(World().invoice().charge("ch_test", livemode=False))

    assert (found.status("inv_1"), found.status("ch_test")) == ("missing_in_stripe", "test_mode")
    assert "ch_test" in found.reason("inv_1")
    assert found.rows["ch_test"]["claimed_invoice_id"] == "inv_1"


def test_equal_money_matches_though_the_gateway_still_says_open(answer: Reconcile) -> None:
    assert answer(World().invoice(status="open").charge()).status("inv_1") == "matched"


def test_an_orphan_charge_wholly_refunded(answer: Reconcile) -> None:
    world = World().charge(names=None, workspace=None).refund("re_1", "ch_1", 1000)

    assert answer(world).status("ch_1") == "refunded_full"


def test_an_orphan_charge_disputed(answer: Reconcile) -> None:
    world = World().charge(names=None).dispute("dp_1", "ch_1", 1000, "needs_response")

    assert answer(world).status("ch_1") == "disputed_open"


def test_an_orphan_charge_merely_partly_refunded(answer: Reconcile) -> None:
    row = answer(World().charge(names="inv_x").refund("re_1", "ch_1", 400)).rows["ch_1"]

    assert (row["status"], row["claimed_invoice_id"]) == ("missing_in_gateway", "inv_x")
    assert (row["charged_minor"], row["refunded_minor"], row["difference_minor"]) == (
        1000,
        400,
        600,
    )


def test_a_charge_settled_in_another_currency_than_charged_matches(answer: Reconcile) -> None:
    """The balance transaction's currency never enters: only the charge's own does."""
    world = World().invoice().charge(balance_transaction_id="txn_in_gbp")

    assert answer(world).status("inv_1") == "matched"


# ---- the order of the statuses, and their edges (sections 2 to 5) ---------------------------


def test_an_invoice_in_another_currency_than_its_charge(answer: Reconcile) -> None:
    row = answer(World().invoice().charge(currency="eur")).rows["inv_1"]

    assert (row["status"], row["charged_minor"], row["charge_count"]) == ("currency_mismatch", 0, 1)


def test_a_charge_that_claims_another_workspace(answer: Reconcile) -> None:
    found = answer(World().invoice().charge(workspace="ws_2"))

    assert found.status("inv_1") == "workspace_mismatch"
    assert "ws_2" in found.reason("inv_1")


def test_the_claim_of_a_declined_charge_contradicts_nobody(answer: Reconcile) -> None:
    assert (
        answer(World().invoice().charge().declined("ch_0", workspace="ws_2")).status("inv_1")
        == "matched"
    )


def test_an_invoice_of_no_known_workspace_is_contradicted_by_no_claim(answer: Reconcile) -> None:
    assert answer(World().invoice(workspace_id=None).charge()).status("inv_1") == "matched"


def test_a_declined_charge_that_two_ids_are_named_for_contradicts_nobody(answer: Reconcile) -> None:
    world = (
        World()
        .invoice()
        .charge("ch_1")
        .declined("ch_0", payment_intent_id="pi_0")
        .intent("pi_0", "inv_9")
    )

    found = answer(world)

    assert (found.status("inv_1"), found.status("ch_0")) == ("matched", "zero_amount")


def test_blanks_around_the_metadata_are_taken_off_and_blank_is_missing(answer: Reconcile) -> None:
    world = World().invoice().charge("ch_1", names=" \t inv_1\u2003\n", workspace="\u00a0")

    row = answer(world).rows["inv_1"]

    assert (row["status"], row["matched_by"]) == ("matched_by_fallback", "charge_invoice_id")


def test_the_case_of_an_invoice_id_counts(answer: Reconcile) -> None:
    assert answer(World().invoice().charge(names="INV_1")).status("ch_1") == "missing_in_gateway"


@pytest.mark.parametrize("gateway", ["draft", "void", "uncollectible"])
def test_money_kept_on_an_invoice_that_is_not_owed(answer: Reconcile, gateway: str) -> None:
    row = answer(World().invoice(status=gateway).charge()).rows["inv_1"]

    assert (row["status"], row["expected_minor"], row["kept_minor"]) == ("void_but_paid", 0, 1000)


def test_a_failed_refund_that_nothing_made_good(answer: Reconcile) -> None:
    world = World().invoice().charge().refund("re_1", "ch_1", 400, status="failed")
    world.refund("re_2", "ch_1", 399, created_at=days_ago(5))

    row = answer(world).rows["inv_1"]

    assert (row["status"], row["opened_at"], row["age_days"]) == ("refund_failed", days_ago(10), 10)


def test_a_refund_before_the_failed_one_makes_nothing_good(answer: Reconcile) -> None:
    world = World().invoice().charge().refund("re_1", "ch_1", 400, status="failed")
    world.refund("re_0", "ch_1", 400, created_at=days_ago(10))

    assert answer(world).status("inv_1") == "refund_failed"


def test_a_canceled_refund_does_not_count(answer: Reconcile) -> None:
    assert (
        answer(World().invoice().charge().refund("re_1", "ch_1", 400, status="canceled")).status(
            "inv_1"
        )
        == "matched"
    )


def test_two_equal_refunds_of_one_day_are_two(answer: Reconcile) -> None:
    world = World().invoice().charge().refund("re_1", "ch_1", 300).refund("re_2", "ch_1", 300)

    assert answer(world).rows["inv_1"]["refunded_minor"] == 600


def test_a_pending_refund_counts_from_its_creation(answer: Reconcile) -> None:
    world = World().invoice().charge().refund("re_1", "ch_1", 1000, status="pending")

    assert answer(world).status("inv_1") == "refunded_full"


def test_one_charge_above_the_bill_is_overpaid(answer: Reconcile) -> None:
    row = answer(World().invoice().charge(amount=1500)).rows["inv_1"]

    assert (row["status"], row["difference_minor"]) == ("overpaid", 500)


def test_two_charges_that_are_both_needed_are_overpaid_not_duplicate(answer: Reconcile) -> None:
    assert (
        answer(World().invoice().charge("ch_1", 700).charge("ch_2", 600)).status("inv_1")
        == "overpaid"
    )


def test_a_won_dispute_is_told(answer: Reconcile) -> None:
    assert (
        answer(World().invoice().charge().dispute("dp_1", "ch_1", 1000, "won")).status("inv_1")
        == "dispute_won"
    )


@pytest.mark.parametrize(("age", "status"), [(3, "in_flight"), (4, "missing_in_stripe")])
def test_an_unpaid_invoice_is_young_for_three_whole_days(
    answer: Reconcile, age: int, status: str
) -> None:
    assert answer(World().invoice(issued_at=days_ago(age))).status("inv_1") == status


@pytest.mark.parametrize(("age", "status"), [(14, "in_flight"), (15, "missing_in_stripe")])
def test_a_waiting_charge_is_fresh_for_fourteen_whole_days(
    answer: Reconcile, age: int, status: str
) -> None:
    assert (
        answer(World().invoice().pending("ch_1", created_at=days_ago(age))).status("inv_1")
        == status
    )


@pytest.mark.parametrize(("age", "status"), [(3, "in_flight"), (4, "missing_in_gateway")])
def test_an_orphan_charge_is_young_for_three_whole_days(
    answer: Reconcile, age: int, status: str
) -> None:
    assert answer(World().charge(names="inv_x", created_at=days_ago(age))).status("ch_1") == status


def test_an_authorisation_waits_and_one_that_was_let_go_is_dead(answer: Reconcile) -> None:
    world = World().invoice()
    world.charge("ch_1", captured=False, amount_captured_minor=0, created_at=days_ago(2))
    world.charge("ch_2", captured=False, amount_captured_minor=0, refunded=True)

    found = answer(world)

    assert found.status("inv_1") == "in_flight"
    assert [found.roles[name, "inv_1"][0] for name in ("ch_1", "ch_2")] == ["waiting", "dead"]


def test_part_of_an_invoice_waits_while_a_second_charge_is_pending(answer: Reconcile) -> None:
    world = World().invoice().charge("ch_1", 400).pending("ch_2", created_at=days_ago(1))

    assert answer(world).status("inv_1") == "in_flight"


def test_a_test_warehouse_counts_test_charges_only(answer: Reconcile) -> None:
    world = World().invoice().charge("ch_test", livemode=False).charge("ch_live")

    found = answer(world, stripe_livemode=False)

    assert (found.status("inv_1"), found.status("ch_live")) == ("matched", "test_mode")


def test_no_status_reads_the_clock_but_through_ages(answer: Reconcile) -> None:
    found = answer(World().invoice().charge().dispute("dp_1", "ch_1", 1000, "needs_response"))

    row = found.rows["inv_1"]

    assert (row["opened_at"], row["age_days"]) == (days_ago(8), 8)


# ---- versions, exports, deliveries ----------------------------------------------------------


def test_the_latest_version_of_a_charge_speaks(answer: Reconcile) -> None:
    world = (
        World().invoice().pending("ch_1", arrived_at=days_ago(1)).charge("ch_1", arrived_at=NOON)
    )

    assert answer(world).status("inv_1") == "matched"


def test_the_api_wins_over_an_export_that_arrived_later(answer: Reconcile) -> None:
    world = World().invoice().charge(arrived_at=days_ago(1))
    world.charge(origin="csv", amount_refunded_minor=1000, refunded=True)
    world.dispute("csv:dispute:ch_1", "ch_1", 1000, "lost", origin="csv")

    row = answer(world).rows["inv_1"]

    assert (row["status"], row["refunded_minor"], row["disputed_minor"]) == ("matched", 0, 0)


def test_the_sum_refunded_in_an_export_is_one_refund(answer: Reconcile) -> None:
    found = answer(World().invoice().charge(origin="csv", amount_refunded_minor=400))

    assert found.status("inv_1") == "refunded_partial"
    assert "csv:refund:ch_1" in found.reason("inv_1")


def test_an_export_without_a_mode_is_of_the_warehouses_mode(answer: Reconcile) -> None:
    assert (
        answer(World().invoice().charge(origin="csv", livemode=None)).status("inv_1") == "matched"
    )


def test_an_invoice_delivered_again_is_one_invoice_and_the_newest_delivery_speaks(
    answer: Reconcile,
) -> None:
    world = (
        World()
        .invoice(status="open", arrived_at=NOON)
        .invoice(status="void", arrived_at=days_ago(1))
    )

    found = answer(world)

    assert list(found.rows) == ["inv_1"]
    assert "open" in found.reason("inv_1")


# ---- reasons --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("currency", "said"),
    [
        ("usd", "USD 1,234,567.89"),
        ("jpy", "JPY 123,456,789"),
        ("kwd", "KWD 123,456.789"),
        ("isk", "ISK 1,234,567.89"),
    ],
)
def test_money_is_told_in_major_units_of_its_currency(
    answer: Reconcile, currency: str, said: str
) -> None:
    world = (
        World()
        .invoice(total=123_456_789, currency=currency)
        .charge(amount=123_456_789, currency=currency)
    )

    assert (
        answer(world).reason("inv_1")
        == f"Invoice inv_1 over {said} is paid by ch_1 ({said}, 2026-11-01)."
    )


def test_the_exponents_of_the_sql_are_those_of_the_exports_reader(models: Models) -> None:
    with rolled_back() as connection:
        currencies = connection.sql(models.models["staging.currencies"].sql).fetchall()

    assert dict(currencies) == dict(PLACES)


# ---- what users of other systems ask for (facts/asks.md, 7 and 8) ---------------------------


def test_a_charge_says_no_invoice_since_basil_and_is_found_by_its_invoice_payment(
    answer: Reconcile,
) -> None:
    world = World().invoice(kind="subscription").silent(payment_intent_id="pi_1")
    world.bill(names="inv_1", workspace="ws_1").paid("in_1", intent="pi_1")

    row = answer(world).rows["inv_1"]

    assert (row["status"], row["matched_by"]) == ("matched_by_fallback", "stripe_invoice_metadata")
    assert (row["stripe_invoice_id"], row["payment_intent_id"]) == ("in_1", "pi_1")


def test_a_paid_stripe_invoice_whose_charge_cannot_be_found_is_told_of(answer: Reconcile) -> None:
    world = World().invoice().bill(names="inv_1").paid("in_1", intent="pi_lost")

    found = answer(world)

    assert found.status("inv_1") == "missing_in_stripe"
    assert found.rows["inv_1"]["matched_by"] == "stripe_invoice_metadata"


def test_several_disputes_and_refunds_of_one_charge_are_one_row(answer: Reconcile) -> None:
    world = World().invoice().charge()
    for number, outcome in enumerate(["warning_closed", "won", "needs_response"]):
        world.dispute(f"dp_{number}", "ch_1", 300, outcome, created_at=days_ago(9 - number))
    world.refund("re_1", "ch_1", 100).refund("re_2", "ch_1", 100)

    found = answer(world, is_checked=True)

    assert list(found.rows) == ["inv_1"]
    row = found.rows["inv_1"]
    assert (row["status"], row["charged_minor"]) == ("disputed_open", 1000)
    assert (row["refunded_minor"], row["disputed_minor"], row["kept_minor"]) == (200, 300, 500)
    assert (row["opened_at"], row["charge_count"]) == (days_ago(7), 1)


def test_a_second_partial_refund_that_looks_like_a_replay_counts(answer: Reconcile) -> None:
    """Same charge, amount, second and reason; only the id differs."""
    world = World().invoice().charge(amount_refunded_minor=800)
    world.refund("re_1", "ch_1", 400).refund("re_2", "ch_1", 400)

    found = answer(world, is_checked=True)

    assert found.rows["inv_1"]["refunded_minor"] == 800
    assert found.complaints == []


def test_the_same_refund_read_again_is_one(answer: Reconcile) -> None:
    world = World().invoice().charge()
    world.refund("re_1", "ch_1", 400, status="pending", arrived_at=days_ago(1))
    world.refund("re_1", "ch_1", 400, record_sha256="later")

    assert answer(world).rows["inv_1"]["refunded_minor"] == 400


def test_a_refund_that_failed_gives_nothing_back(answer: Reconcile) -> None:
    row = answer(World().invoice().charge().refund("re_1", "ch_1", 1000, status="failed")).rows[
        "inv_1"
    ]

    assert (row["status"], row["refunded_minor"], row["kept_minor"]) == ("refund_failed", 0, 1000)


# ---- Stripe's bills -------------------------------------------------------------------------


def test_a_credit_note_before_payment_lowers_what_charges_should_bring(answer: Reconcile) -> None:
    world = World().invoice().charge(amount=700, payment_intent_id="pi_1")
    world.bill(pre_payment_credit_notes_minor=300).paid("in_1", intent="pi_1")

    found = answer(world)

    assert found.status("inv_1") == "matched"
    assert found.rows["inv_1"]["expected_minor"] == 700
    assert "leave USD 7.00 of it to pay" in found.reason("inv_1")


def test_two_bills_that_differ_are_both_told(answer: Reconcile) -> None:
    world = World().invoice().charge(payment_intent_id="pi_1")
    world.bill(total=1200).paid("in_1", intent="pi_1")

    found = answer(world)

    assert found.status("inv_1") == "amount_mismatch"
    assert "in_1 (USD 12.00, 2026-11-01, paid)" in found.reason("inv_1")


def test_money_past_stripe_is_told_beside_the_charge(answer: Reconcile) -> None:
    world = World().invoice().charge(amount=600, payment_intent_id="pi_1")
    world.bill(amount_paid_off_stripe_minor=400).paid("in_1", intent="pi_1")

    found = answer(world)

    assert found.status("inv_1") == "paid_out_of_band"
    assert "ch_1 (USD 6.00, 2026-11-01) and USD 4.00 past Stripe" in found.reason("inv_1")


def test_stripes_objects_of_the_other_mode_say_nothing(answer: Reconcile) -> None:
    world = World().invoice().silent(payment_intent_id="pi_1")
    world.intent("pi_1", "inv_1", livemode=False)
    world.bill(names="inv_1", livemode=False).paid("in_1", intent="pi_1", livemode=False)

    found = answer(world)

    assert (found.status("inv_1"), found.status("ch_1")) == (
        "missing_in_stripe",
        "missing_in_gateway",
    )


# ---- the claims, each broken on purpose ---------------------------------------------------

RunModel = Callable[..., list[Row]]
AGREES = {
    "item_id": "inv_1",
    "item_kind": "invoice",
    "invoice_id": "inv_1",
    "status": "matched",
    "standing": "agrees",
    "reason": "Paid.",
    "currency": "usd",
    "charged_minor": 1000,
    "refunded_minor": 0,
    "disputed_minor": 0,
    "difference_minor": 0,
}
LINKED = {
    "charge_id": "ch_1",
    "invoice_id": "inv_1",
    "role": "settled",
    "amount_minor": 1000,
    "currency": "usd",
}
CAPTURED = {
    "charge_id": "ch_1",
    "state": "settled",
    "amount_captured_minor": 1000,
    "currency": "usd",
}


def test_an_invoice_without_a_row_is_complained_of(run_model: RunModel) -> None:
    [complaint] = run_model(
        "invoice_reconciliation__everything_is_in_one_row",
        {"raw.invoices": [{"infery_invoice_id": "inv_1"}]},
    )

    assert (complaint["table_name"], complaint["expected"], complaint["found"]) == (
        "marts.invoice_reconciliation",
        "1",
        "0",
    )


def test_a_charge_in_two_rows_is_complained_of(run_model: RunModel) -> None:
    complaints = run_model(
        "invoice_reconciliation__everything_is_in_one_row",
        {
            "raw.stripe_charges": [{"charge_id": "ch_1"}],
            "marts.invoice_charges": [LINKED, LINKED | {"invoice_id": "inv_2"}],
            "marts.invoice_reconciliation": [
                {"item_id": "ch_1", "item_kind": "charge", "charge_id": "ch_1"}
            ],
        },
    )

    assert {complaint["claim"] for complaint in complaints} == {
        "every charge has one row of its own, or an invoice that speaks for it",
        "no charge has both a row of its own and an invoice that speaks for it",
        "a charge belongs to one invoice",
    }


def test_captured_money_that_no_row_tells_of_is_complained_of(run_model: RunModel) -> None:
    [complaint] = run_model(
        "invoice_reconciliation__captured_money_is_conserved",
        {"staging.charges": [CAPTURED], "marts.invoice_charges": [LINKED | {"amount_minor": 999}]},
    )

    assert (complaint["expected"], complaint["found"]) == ("1000", "999")


def test_an_invoice_row_that_invents_a_refund_is_complained_of(run_model: RunModel) -> None:
    [complaint] = run_model(
        "invoice_reconciliation__invoice_rows_sum_their_charges",
        {
            "marts.invoice_charges": [LINKED],
            "marts.invoice_reconciliation": [AGREES | {"refunded_minor": 5}],
        },
    )

    assert (complaint["claim"], complaint["expected"], complaint["found"]) == (
        "refunded_minor of the invoices in usd is that of their charges",
        "0",
        "5",
    )


@pytest.mark.parametrize(("status", "count"), [("matched", 1), ("dispute_lost", 0)])
def test_an_agreeing_row_with_unexplained_money_is_complained_of(
    run_model: RunModel, status: str, count: int
) -> None:
    row = AGREES | {"status": status, "difference_minor": 5}

    complaints = run_model(
        "invoice_reconciliation__agreeing_rows_differ_by_nothing",
        {"marts.invoice_reconciliation": [row]},
    )

    assert [complaint["found"] for complaint in complaints] == ["5"] * count


def test_a_row_without_a_reason_is_complained_of(run_model: RunModel) -> None:
    row = AGREES | {"reason": None}

    assert run_model(
        "invoice_reconciliation__every_status_is_known", {"marts.invoice_reconciliation": [row]}
    )
    assert not run_model(
        "invoice_reconciliation__every_status_is_known", {"marts.invoice_reconciliation": [AGREES]}
    )


def test_a_refund_of_a_charge_never_read_is_warned_of(run_model: RunModel, models: Models) -> None:
    name = "invoice_reconciliation__refunds_and_disputes_have_charges"

    [warning] = run_model(name, {"staging.refunds": [{"refund_id": "re_1", "charge_id": "ch_9"}]})

    assert models.claims[name].is_warning
    assert warning["claim"] == "the charge of refund re_1 is known"


def test_a_refund_not_read_yet_is_warned_of(run_model: RunModel) -> None:
    charge = CAPTURED | {"origin": "api", "amount_minor": 1000, "amount_refunded_minor": 400}

    [warning] = run_model(
        "invoice_reconciliation__refunds_sum_to_the_charges_own", {"staging.charges": [charge]}
    )

    assert (warning["expected"], warning["found"]) == ("400", "0")


# ---- planted accounts and random worlds, against the oracle ---------------------------------

PLANTED = 10_000  # invoices and charges


def agrees_with_the_oracle(found: Answer, expected: Judgement) -> None:
    assert found.rows.keys() == expected.rows.keys()
    for item_id, row in expected.rows.items():
        assert {name: found.rows[item_id][name] for name in row} == row, item_id
        assert found.rows[item_id]["reason"], f"{item_id} has no reason"
    assert found.roles == expected.roles
    assert [row for row in found.complaints if row["check"] not in AT_ODDS] == []


# Warnings about Stripe's own sums, which these worlds do not keep.
AT_ODDS = {
    "invoice_reconciliation__refunds_sum_to_the_charges_own",
    "invoice_reconciliation__stripe_bills_add_up",
}


def test_each_planted_case_gets_its_status_and_rung_and_no_other_row_does(
    answer: Reconcile,
) -> None:
    world, truth = plant(seed=1, count=PLANTED)
    expected = reconcile(as_the_oracle_sees(world), TODAY)

    found = answer(world, is_checked=True)

    judged = {name: (row["status"], row["matched_by"]) for name, row in found.rows.items()}
    assert judged == truth
    assert {status for status, _ in truth.values()} == set(STANDING)
    agrees_with_the_oracle(found, expected)


def test_every_line_of_section_6_is_planted() -> None:
    """By name: `SECTION_6` beside the cases; each of them is in every planted account, twice."""
    missing = {line: names for line, names in SECTION_6.items() if not set(names) <= CASES.keys()}

    assert missing == {}


def a_world(seed: int, count: int = 150) -> World:
    """Invoices, charges and Stripe invoices with every kind of trouble at once; small amounts, so
    that sums often meet exactly, and few ids, so that rungs often contradict each other.
    """
    chance = random.Random(f"world {seed}")
    world = World()
    known = [f"inv_{number}" for number in range(count)]

    def near(name: str) -> str | None:
        """Mostly the invoice that is meant."""
        others = [f" {name}\n", "inv_unknown", None, chance.choice(known)]
        return chance.choices([name, *others], [20, 2, 1, 8, 1])[0]

    def says(name: str) -> str:
        return metadata(near(name), chance.choices(["ws_1", None, "ws_9", " "], [9, 6, 1, 1])[0])

    for number, name in enumerate(known):
        total = chance.choice([0, 500, 1000, 1000, 1000])
        currency = chance.choice(["usd", "usd", "jpy"])
        world.invoice(
            name,
            total,
            currency=currency,
            workspace_id=chance.choice(["ws_1", "ws_1", "ws_1", "ws_2", None]),
            status=chance.choice(
                ["paid", "paid", "paid", "open", "draft", "void", "uncollectible"]
            ),
            issued_at=days_ago(chance.choice([0, 2.5, 3, 4, 20, 60])),
            payment_intent_id=chance.choice(
                [None, None, f"pi_{number}_0", f"pi_{chance.randrange(count)}_0"]
            ),
            stripe_invoice_id=chance.choice([None, None, None, f"in_{number}"]),
        )
        is_basil = chance.random() < 0.6
        intents = [f"pi_{number}_{which}" for which in range(chance.choice([0, 1, 1, 1, 2, 3]))]
        for which, intent in enumerate(intents):
            charge_id = f"ch_{number}_{which}"
            shape = chance.choices(
                ["settled", "pending", "authorised", "released", "failed", "partial"],
                [12, 1, 1, 1, 2, 2],
            )[0]
            amount = chance.choice([total or 500, total or 500, 500, 250, 1000])
            captured = {"settled": amount, "partial": chance.choice([amount // 2, 500])}.get(
                shape, 0
            )
            charge_currency = currency if chance.random() > 0.04 else "eur"
            world.charge(
                charge_id,
                amount,
                names=near(name),
                workspace=chance.choices(["ws_1", None, "ws_9", " "], [12, 3, 1, 1])[0],
                livemode=chance.random() > 0.05,
                currency=charge_currency,
                created_at=days_ago(chance.choice([0, 3, 4, 13.9, 14, 15, 40])),
                status={"pending": "pending", "failed": "failed"}.get(shape, "succeeded"),
                captured=shape in ("settled", "partial"),
                refunded=shape == "released",
                amount_captured_minor=captured,
                payment_intent_id=chance.choice([intent, intent, None]),
                stripe_invoice_id=None if is_basil else chance.choice([None, f"in_{number}"]),
            )
            if chance.random() < 0.3:
                world.intent(
                    intent,
                    livemode=chance.random() > 0.1,
                    metadata=says(name),
                    stripe_invoice_id=None if is_basil else chance.choice([None, f"in_{number}"]),
                )
            for again in range(chance.choice([0, 0, 0, 0, 1, 1, 2, 3])):
                world.refund(
                    f"re_{charge_id}_{again}",
                    charge_id,
                    chance.choice([captured or 100, 250, 100, 500]),
                    status=chance.choices(
                        ["succeeded", "pending", "requires_action", "failed", "canceled"],
                        [10, 1, 1, 3, 1],
                    )[0],
                    created_at=days_ago(chance.choice([1, 2, 3, 3])),
                    currency=charge_currency,
                    reporting_category=chance.choices(
                        ["refund", None, "partial_capture_reversal"],
                        [8, 1, 1 if shape == "partial" else 0],
                    )[0],
                )
            for again in range(chance.choice([0] * 8 + [1, 2])):
                world.dispute(
                    f"dp_{charge_id}_{again}",
                    charge_id,
                    chance.choice([captured or 100, 250]),
                    chance.choice(
                        ["needs_response", "under_review", "won", "won", "lost", "prevented"]
                    ),
                    created_at=days_ago(chance.choice([1, 2, 5])),
                    currency=charge_currency,
                )
            if chance.random() < 0.1:
                world.report(charge_id, f"in_{chance.choice([number, chance.randrange(count)])}")
        if chance.random() < 0.5:
            a_stripe_invoice(world, chance, number, total, currency, is_basil, says)
    return world


def a_stripe_invoice(
    world: World,
    chance: random.Random,
    number: int,
    total: int,
    currency: str,
    is_basil: bool,
    says: Callable[[str], str],
) -> None:
    name, stripe_invoice_id = f"inv_{number}", f"in_{number}"
    old: dict[str, Any] = {
        "payment_intent_id": chance.choice([None, f"pi_{number}_0"]),
        "charge_id": chance.choice([None, f"ch_{number}_0"]),
        "paid_out_of_band": chance.random() < 0.3,
    }
    world.bill(
        stripe_invoice_id,
        total if chance.random() < 0.85 else 700,
        livemode=chance.random() > 0.05,
        status=chance.choice(["paid", "paid", "paid", "open", "void", "uncollectible", "draft"]),
        currency=currency if chance.random() > 0.05 else "eur",
        subscription=says(name) if chance.random() < 0.3 else "{}",
        lines=[says(name) for _ in range(chance.choice([0, 0, 0, 1, 2]))],
        pre_payment_credit_notes_minor=chance.choice([0, 0, 0, 0, 500, 2000]),
        starting_balance_minor=chance.choice([0, 0, -500]),
        ending_balance_minor=chance.choice([0, None, -250]),
        amount_paid_minor=chance.choice([total, 0]),
        amount_paid_off_stripe_minor=chance.choice([None, None, None, 500]) if is_basil else None,
        **({} if is_basil else old),
        **({"metadata": says(name)} if chance.random() < 0.6 else {}),
    )
    if is_basil:
        for which in range(3):
            if chance.random() < 0.6:
                world.paid(
                    stripe_invoice_id,
                    **chance.choice(
                        [
                            {"intent": f"pi_{number}_{which}"},
                            {"intent": f"pi_{number}_{which}"},
                            {"charge": f"ch_{number}_{which}"},
                            {"record": f"pr_{number}_{which}"},
                        ]
                    ),
                    amount=chance.choice([total, 250]),
                    status=chance.choice(["paid", "paid", "paid", "open", "canceled"]),
                    livemode=chance.random() > 0.05,
                )


SEEDS = range(6)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sql_and_the_oracle_agree_on_every_row_of_a_world(answer: Reconcile, seed: int) -> None:
    world = a_world(seed)

    agrees_with_the_oracle(
        answer(world, is_checked=True), reconcile(as_the_oracle_sees(world), TODAY)
    )


RARE = {"dispute_won", "paid_out_of_band"}  # in so much trouble; the planted accounts have them


def test_the_worlds_contain_nearly_every_status() -> None:
    seen = Counter(
        row["status"]
        for seed in SEEDS
        for row in reconcile(as_the_oracle_sees(a_world(seed)), TODAY).rows.values()
    )

    assert {status for status in STANDING if not seen[status]} <= RARE
