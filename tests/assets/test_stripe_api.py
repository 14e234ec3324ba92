"""Stripe through the real SDK, against the local Stripe: windows, pages, patience, and what is read
again.
"""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from assets import stripe_api
from assets.stripe_api import land
from pipelines.settings import Settings, SettingsError, Stripe
from pipelines.simulator import stripe_account
from pipelines.simulator.stripe_server import LocalStripe, seeded_faults, serve
from pipelines.store import StoreError

DAY = 86_400
NOW = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp())


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe_api, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr("stripe._http_client.HTTPClient.INITIAL_DELAY", 0.001)
    monkeypatch.setattr("stripe._http_client.HTTPClient.MAX_DELAY", 0.002)


class Account:
    """An account that a test may change while it is served."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {
            "charge": [],
            "refund": [],
            "dispute": [],
            "balance_transaction": [],
        }
        self.served = stripe_account.account(self.objects, as_of=NOW)

    def charge(self, charge_id: str, days_ago: float, **stated: Any) -> dict[str, Any]:
        amount = stated.pop("amount", 1000)
        fields = {
            "id": charge_id,
            "amount": amount,
            "amount_captured": amount,
            "created": NOW - int(days_ago * DAY),
            "currency": "usd",
            "status": "succeeded",
            "metadata": {"infery_invoice_id": "inv_1", "workspace_id": "ws_1", "note": "private"},
        }
        made = stripe_account.charge(**(fields | stated))
        self.objects["charge"].append(made)
        return made

    def refund(
        self, refund_id: str, charge_id: str, days_ago: float, **stated: Any
    ) -> dict[str, Any]:
        fields = {
            "id": refund_id,
            "charge": charge_id,
            "amount": 400,
            "currency": "usd",
            "created": NOW - int(days_ago * DAY),
            "status": "succeeded",
        }
        made = stripe_account.refund(**(fields | stated))
        self.objects["refund"].append(made)
        return made

    def dispute(
        self, dispute_id: str, charge_id: str, days_ago: float, **stated: Any
    ) -> dict[str, Any]:
        fields = {
            "id": dispute_id,
            "charge": charge_id,
            "amount": 1000,
            "currency": "usd",
            "created": NOW - int(days_ago * DAY),
            "status": "needs_response",
            "livemode": True,
        }
        made = stripe_account.dispute(**(fields | stated))
        self.objects["dispute"].append(made)
        return made


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def local(account: Account) -> Iterator[LocalStripe]:
    with serve(account.served) as running:
        yield running


def keyed(house: Any, local: LocalStripe, key: str = "rk_live_1") -> Any:
    house.settings = Settings(
        folder=house.folder, stripe=Stripe(api_base=local.base_url, api_key=SecretStr(key))
    )
    return house


def asked(local: LocalStripe, path: str = "") -> list[tuple[str, dict[str, str]]]:
    """What was asked since the last look."""
    found = [(one.path, one.parameters) for one in local.requests if path in one.path]
    local.requests.clear()
    return found


def test_nothing_is_read_without_a_key(house: Any) -> None:
    assert not house.night(land)


@pytest.mark.parametrize("table", sorted(stripe_api.TABLES))
def test_every_table_of_stripe_is_there_before_anything_was_read(house: Any, table: str) -> None:
    assert house.rows(table) == []


def test_a_charge_becomes_a_typed_row_and_nothing_personal_stays(
    house: Any, account: Account, local: LocalStripe, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    billing: dict[str, Any] = {
        "name": "Jenny Rosen",
        "email": "jenny@acme.example",
        "address": {},
        "phone": None,
        "tax_id": None,
    }
    account.charge("ch_1", 5, billing_details=billing, payment_intent="pi_1", amount_captured=700)

    keyed(house, local).night(land)

    [row] = house.rows("raw.stripe_charges")
    assert (row["charge_id"], row["origin"], row["livemode"]) == ("ch_1", "api", True)
    assert (row["amount_minor"], row["amount_captured_minor"], row["currency"]) == (
        1000,
        700,
        "usd",
    )
    assert row["created_at"] == datetime(2026, 11, 15)
    assert json.loads(row["metadata"]) == {"infery_invoice_id": "inv_1", "workspace_id": "ws_1"}
    for kept in (str(row), caplog.text):
        assert not any(secret in kept for secret in ("Jenny", "acme", "4242", "private"))


def test_every_page_is_read_twice(house: Any, account: Account, local: LocalStripe) -> None:
    for number in range(230):
        account.charge(f"ch_{number:03}", number / 10)

    keyed(house, local).night(land)

    assert len(house.rows("raw.stripe_charges")) == 230
    assert len(asked(local, "/v1/charges")) == 6  # two passes of three pages


def test_the_first_night_lists_from_the_beginning_and_later_ones_from_two_days_before_the_newest(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account.charge("ch_1", 90)
    account.charge("ch_2", 10)
    keyed(house, local).night(land)
    assert "created[gte]" not in asked(local, "/v1/charges")[0][1]

    account.charge("ch_late", 11.5)
    account.charge("ch_3", 1)
    house.night(land)

    assert asked(local, "/v1/charges")[0][1]["created[gte]"] == str(NOW - 12 * DAY)
    assert len(house.rows("raw.stripe_charges")) == 4


def test_a_second_night_on_an_unchanged_account_appends_nothing(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account.charge("ch_1", 20)
    account.charge("ch_2", 1, status="pending", captured=False, amount_captured=0)
    account.refund("re_1", "ch_1", 1, status="pending")
    account.dispute("dp_1", "ch_1", 5)

    assert keyed(house, local).night(land)
    assert not house.night(land)


def test_what_is_not_final_is_read_again_however_old(
    house: Any, account: Account, local: LocalStripe
) -> None:
    debit = account.charge("py_1", 30, status="pending", captured=False, amount_captured=0)
    account.charge("ch_2", 29)
    account.charge("ch_1", 1)
    refund = account.refund("re_1", "ch_2", 25, status="requires_action")
    account.refund("re_2", "ch_2", 1)
    dispute = account.dispute("dp_1", "ch_2", 25)
    account.dispute("dp_2", "ch_2", 1, status="won")
    keyed(house, local).night(land)
    asked(local)

    debit |= {"status": "succeeded", "captured": True, "amount_captured": 1000}
    refund["status"] = "failed"
    dispute["status"] = "lost"
    assert house.night(land)

    again = {path for path, _ in asked(local) if path.count("/") == 3}
    assert {"/v1/charges/py_1", "/v1/refunds/re_1", "/v1/disputes/dp_1"} <= again
    assert newest(house, "raw.stripe_charges", "charge_id")["py_1"]["status"] == "succeeded"
    assert newest(house, "raw.stripe_refunds", "refund_id")["re_1"]["status"] == "failed"
    assert newest(house, "raw.stripe_disputes", "dispute_id")["dp_1"]["status"] == "lost"

    asked(local)
    house.night(land)
    assert not [path for path, _ in asked(local) if path.count("/") == 3]


def newest(house: Any, table: str, key: str) -> dict[str, dict[str, Any]]:
    rows = sorted(house.rows(table), key=lambda row: row["arrived_at"])
    return {row[key]: row for row in rows}


def test_a_new_refund_of_an_old_charge_reads_that_charge_again(
    house: Any, account: Account, local: LocalStripe
) -> None:
    old = account.charge("ch_old", 200)
    account.charge("ch_new", 1)
    keyed(house, local).night(land)

    old["amount_refunded"] = 400
    account.refund("re_1", "ch_old", 0.5)
    house.night(land)

    assert (
        newest(house, "raw.stripe_charges", "charge_id")["ch_old"]["amount_refunded_minor"] == 400
    )
    assert house.rows("raw.stripe_refunds")[0]["charge_id"] == "ch_old"


def test_the_category_of_a_refunds_balance_transaction_is_kept(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account.charge("ch_1", 3, amount_captured=700)
    account.objects["balance_transaction"].append(
        stripe_account.balance_transaction(
            id="txn_1",
            amount=-300,
            fee=0,
            reporting_category="partial_capture_reversal",
            created=NOW,
            source="ch_1",
        )
    )
    account.refund("re_1", "ch_1", 3, balance_transaction="txn_1")
    account.refund("re_2", "ch_1", 3)

    keyed(house, local).night(land)

    rows = newest(house, "raw.stripe_refunds", "refund_id")
    assert rows["re_1"]["reporting_category"] == "partial_capture_reversal"
    assert rows["re_2"]["reporting_category"] is None


def test_a_test_key_reads_the_test_objects_and_the_modes_keep_their_own_place(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account.charge("ch_live", 1)
    account.charge("ch_test", 50, livemode=False)
    keyed(house, local, "sk_test_1").night(land)
    assert [row["livemode"] for row in house.rows("raw.stripe_charges")] == [False]
    asked(local)

    keyed(house, local, "sk_live_1").night(land)

    assert "created[gte]" not in asked(local, "/v1/charges")[0][1]
    assert {row["charge_id"] for row in house.rows("raw.stripe_charges")} == {"ch_live", "ch_test"}


def test_a_busy_stripe_is_asked_again_until_it_answers(
    house: Any, account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    account.charge("ch_1", 1)
    caplog.set_level(logging.WARNING)

    with serve(account.served, faults=["429", "429", "429"]) as busy:
        keyed(house, busy).night(land)

        assert [one.status for one in busy.requests][:4] == [429, 429, 429, 200]
    assert "asking again in" in caplog.text


def test_faults_of_every_kind_lose_and_double_nothing(house: Any, account: Account) -> None:
    for number in range(150):
        account.charge(f"ch_{number:03}", number / 10)
        account.refund(f"re_{number:03}", f"ch_{number:03}", number / 10)

    with serve(account.served, faults=seeded_faults(7)) as faulty:
        keyed(house, faulty).night(land)

    assert len(house.rows("raw.stripe_charges")) == len(house.rows("raw.stripe_refunds")) == 150


def test_the_wait_is_what_stripe_says_or_grows_with_jitter() -> None:
    class BusyError(Exception):
        def __init__(self, headers: dict[str, str]) -> None:
            self.headers = headers

    assert stripe_api._wait(_state(BusyError({"Retry-After": "7"}), 1)) == 7
    assert (
        stripe_api._wait(_state(BusyError({"Retry-After": "9999"}), 1))
        == stripe_api.LONGEST_WAIT_SECONDS
    )
    longest = stripe_api.FIRST_WAIT_SECONDS * 2**3
    assert longest / 2 <= stripe_api._wait(_state(BusyError({}), 4)) <= longest


def _state(error: Exception, attempt: int) -> Any:
    class Outcome:
        @staticmethod
        def exception() -> Exception:
            return error

    class State:
        outcome = Outcome
        attempt_number = attempt

    return State


def test_a_stripe_that_never_answers_ends_the_night_with_a_sentence(
    house: Any, account: Account
) -> None:
    with (
        serve(account.served, faults=["429"] * 100) as busy,
        pytest.raises(StoreError, match="did not answer"),
    ):
        keyed(house, busy).night(land)


def test_a_refused_key_ends_the_night_with_what_to_do(house: Any, local: LocalStripe) -> None:
    with pytest.raises(SettingsError, match="set METERHOUSE_STRIPE_API_KEY") as told:
        keyed(house, local, "nonsense").night(land)

    assert "nonsense" not in str(told.value)


def test_an_object_that_is_gone_is_told_of_and_stays_as_it_was(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account.charge("ch_1", 30, status="pending", captured=False, amount_captured=0)
    account.charge("ch_2", 1)
    keyed(house, local).night(land)

    account.objects["charge"] = [row for row in account.objects["charge"] if row["id"] != "ch_1"]

    assert not house.night(land)
    assert "ch_1" in house.remarks[0]
