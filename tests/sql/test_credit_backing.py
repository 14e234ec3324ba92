"""The credits side (facts/reconciliation.md, section 8): what a pack is backed by, and what is
taken back of it, case by case and against an oracle of its own.
"""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import credits_oracle as oracle
import pytest
from planted_account import plant
from reconciliation_oracle import reconcile
from reconciliation_worlds import (
    TODAY,
    Answer,
    World,
    as_the_oracle_sees,
    days_ago,
    reconciled,
)
from test_invoice_reconciliation import a_world

from pipelines.models import Models

Account = Callable[..., Answer]
SPLIT = ("backed", "promotional", "held", "lost", "unbacked")


@pytest.fixture
def account(models: Models) -> Account:
    """`account(world)` runs every model between raw and the ledger, and every claim of theirs."""

    def run(world: World, **settings: Any) -> Answer:
        found = reconciled(models, world, is_checked=True, with_credits=True, **settings)
        assert [row for row in found.complaints if row["check"].startswith("credit_")] == []
        return found

    return run


def moved(found: Answer) -> dict[str, tuple[str, str]]:
    """Movement → (kind, credits), but for the grants."""
    return {
        name: (row["kind"], f"{row['credits'].normalize():f}")
        for name, row in found.ledger.items()
        if row["kind"] not in ("grant", "topup")
    }


PACK = {"credits": Decimal(100)}


def test_a_matched_pack_is_backed_and_nothing_moves(account: Account) -> None:
    found = account(World().invoice(**PACK).charge())

    assert found.backing["inv_1"]["backing"] == "backed"
    assert found.backing["inv_1"]["backed_credits"] == 100
    assert moved(found) == {}


def test_a_partial_refund_takes_its_part_of_the_pack(account: Account) -> None:
    found = account(World().invoice(**PACK).charge().refund("re_1", "ch_1", 250))

    assert moved(found) == {"clawback_re_1": ("clawback", "-25")}
    row = found.backing["inv_1"]
    assert (row["backing"], row["backed_credits"], row["lost_credits"]) == ("backed", 75, 25)


def test_a_full_return_in_three_parts_takes_exactly_the_pack(account: Account) -> None:
    world = World().invoice(total=999, credits=Decimal("0.000000010")).charge(amount=999)
    for number in range(3):
        world.refund(f"re_{number}", "ch_1", 333, created_at=days_ago(9 - number))

    found = account(world)

    assert sum(row["credits"] for row in found.ledger.values()) == 0
    assert found.backing["inv_1"]["backing"] == "lost"


def test_a_second_charge_refunded_costs_no_credits(account: Account) -> None:
    world = World().invoice(**PACK).charge("ch_1").charge("ch_2").refund("re_1", "ch_2", 1000)

    found = account(world)

    assert moved(found) == {"clawback_re_1": ("clawback", "0")}
    assert "corrects an excess" in found.ledger["clawback_re_1"]["reason"]
    assert found.backing["inv_1"]["backed_credits"] == 100


def test_an_open_dispute_holds_its_part(account: Account) -> None:
    world = World().invoice(**PACK).charge().dispute("dp_1", "ch_1", 400, "needs_response")

    found = account(world)

    assert moved(found) == {"hold_dp_1": ("hold", "-40")}
    row = found.backing["inv_1"]
    assert (row["backing"], row["held_credits"], row["backed_credits"]) == ("held", 40, 60)


def test_a_won_dispute_releases_what_it_held(account: Account) -> None:
    found = account(World().invoice(**PACK).charge().dispute("dp_1", "ch_1", 400, "won"))

    assert moved(found) == {"hold_dp_1": ("hold", "-40"), "release_dp_1": ("release", "40")}
    assert found.backing["inv_1"]["backing"] == "backed"


def test_a_hold_turns_into_a_clawback_when_the_dispute_is_lost(account: Account) -> None:
    found = account(World().invoice(**PACK).charge().dispute("dp_1", "ch_1", 1000, "lost"))

    assert moved(found) == {"clawback_dp_1": ("clawback", "-100")}
    assert found.backing["inv_1"]["backing"] == "lost"


def test_the_clawback_of_a_failed_refund_is_reversed(account: Account) -> None:
    world = World().invoice(**PACK).charge().refund("re_1", "ch_1", 500, status="failed")

    found = account(world)

    assert moved(found) == {
        "clawback_re_1": ("clawback", "-50"),
        "reversal_re_1": ("clawback", "50"),
    }
    assert found.backing["inv_1"]["backed_credits"] == 100


def test_a_refund_is_waived_where_the_settings_say_so(account: Account) -> None:
    world = World().invoice(**PACK).charge().refund("re_1", "ch_1", 500)

    found = account(world, credits_refund="waive")

    assert moved(found) == {"clawback_re_1": ("adjustment", "0")}
    assert "credits.refund" in found.ledger["clawback_re_1"]["reason"]


def test_an_open_dispute_is_ignored_where_the_settings_say_so(account: Account) -> None:
    world = World().invoice(**PACK).charge().dispute("dp_1", "ch_1", 400, "needs_response")

    found = account(world, credits_dispute="ignore")

    assert moved(found) == {}
    assert found.backing["inv_1"]["backing"] == "backed"


@pytest.mark.parametrize(
    ("world", "backing"),
    [
        (World().invoice(total=0, **PACK), "promotional"),
        (World().invoice(issued_at=days_ago(2), **PACK), "pending"),
        (World().invoice(**PACK), "unbacked"),
        (World().invoice(**PACK).charge(workspace="ws_2"), "unbacked"),
        (World().invoice(**PACK, status="void").charge(), "ungranted"),
        (World().invoice(**PACK, status="open").charge(), "ungranted"),
    ],
    ids=["nothing owed", "in flight", "missing", "another workspace", "void but paid", "left open"],
)
def test_what_stands_behind_a_pack(account: Account, world: World, backing: str) -> None:
    assert account(world).backing["inv_1"]["backing"] == backing


def test_money_without_a_grant_is_told_in_money_and_in_packs(account: Account) -> None:
    found = account(World().invoice(**PACK, status="open").charge().charge("ch_9", 300, names=None))

    invoice, charge = found.backing["inv_1"], found.backing["ch_9"]
    assert (invoice["ungranted_minor"], invoice["ungranted_credits"]) == (1000, 100)
    assert (charge["ungranted_minor"], charge["ungranted_credits"]) == (300, None)


def test_an_invoice_open_for_three_days_may_still_be_granted(account: Account) -> None:
    world = World().invoice(status="open", issued_at=days_ago(3), **PACK)

    assert "inv_1" not in account(world.charge(created_at=days_ago(3))).backing


def agrees(found: Answer, world: World, today: date = TODAY) -> None:
    """Every movement and every row of the backing is the oracle's, and there is no other."""
    judged = reconcile(as_the_oracle_sees(world), today)
    events = oracle.events_of(
        world.invoices, world.charges, world.refunds, world.disputes, judged.roles
    )
    of = {row["infery_invoice_id"]: row for row in world.invoices}
    posted: dict[str, tuple[str, Decimal, date]] = {}
    backed: dict[str, tuple[str, dict[str, Decimal]]] = {}
    for item_id, row in judged.rows.items():
        invoice = of.get(item_id)
        mine = events.get(item_id, [])
        if invoice and invoice["status"] == "paid" and invoice["credits"] > 0:
            posted |= oracle.movements(invoice, row, mine)
        if told := oracle.backing(invoice, row, mine, today):
            backed[item_id] = told
    assert {
        name: (row["kind"], row["credits"], row["posted_date"])
        for name, row in found.ledger.items()
    } == posted
    assert {name: row["backing"] for name, row in found.backing.items()} == {
        name: word for name, (word, _) in backed.items()
    }
    for name, (_, split) in backed.items():
        row = found.backing[name]
        assert {part: row[f"{part}_credits"] for part in SPLIT} == {
            part: split.get(part, 0) for part in SPLIT
        }, name


def test_a_planted_account_has_the_movements_and_the_backing_of_the_oracle(
    account: Account,
) -> None:
    world, _ = plant(seed=1, count=1_500)

    found = account(world)

    agrees(found, world)
    assert {row["backing"] for row in found.backing.values()} == {
        *("backed", "promotional", "pending", "held", "lost", "unbacked", "ungranted"),
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_random_world_has_the_movements_and_the_backing_of_the_oracle(
    account: Account, seed: int
) -> None:
    world = a_world(seed)

    agrees(account(world), world)
