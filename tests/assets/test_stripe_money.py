"""Stripe's invoices, what was paid of them, credit notes, payouts and balance transactions, through
the real SDK against the local Stripe; and lists that do not hold still.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from assets import stripe_api
from assets.stripe_api import land, trouble
from assets.stripe_rows import RESOURCES
from pipelines.settings import Settings, SettingsError, Stripe
from pipelines.simulator import stripe_account as made
from pipelines.simulator.stripe_server import LocalStripe, serve
from pipelines.store import StoreError

DAY = 86_400
NOW = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp())
OURS = {"infery_invoice_id": "INF-1", "workspace_id": "ws_1"}

Account = dict[str, list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe_api, "FIRST_WAIT_SECONDS", 0.001)


@pytest.fixture
def account() -> Account:
    """The objects of an account that a test may change while it is served."""
    return {}


@pytest.fixture
def local(account: Account) -> Iterator[LocalStripe]:
    with serve(made.account(account, as_of=NOW)) as running:
        yield running


def keyed(house: Any, local: LocalStripe) -> Any:
    stripe = Stripe(api_base=local.base_url, api_key=SecretStr("rk_live_1"))
    house.settings = Settings(folder=house.folder, stripe=stripe)
    return house


def ago(days: float) -> int:
    return NOW - int(days * DAY)


def newest(house: Any, table: str) -> dict[str, dict[str, Any]]:
    """The rows of a table as they stand now, by id."""
    rows = sorted(house.rows(f"raw.stripe_{table}"), key=lambda row: row["arrived_at"])
    return {next(iter(row.values())): row for row in rows}


def asked(local: LocalStripe, path: str = "/v1/") -> list[str]:
    """The paths asked for since the last look."""
    found = [one.path for one in local.requests if path in one.path]
    local.requests.clear()
    return found


def meddling(account: Account, changes: dict[int, Callable[[], Any]]) -> Any:
    """A server on which something happens right before the n-th request is answered."""

    def turns() -> Iterator[str]:
        for number in range(10_000):
            changes.get(number, int)()
            yield "ok"

    return serve(made.account(account, as_of=NOW), faults=turns())


# ---- what is kept ---------------------------------------------------------------------------


def test_a_stripe_invoice_is_kept_with_its_amounts_and_what_its_metadata_say(
    house: Any, account: Account, local: LocalStripe
) -> None:
    lines = [
        made.invoice_line(id=f"il_{n}", metadata=OURS | {"note": "x"} if n in (3, 12, 13) else {})
        for n in range(15)
    ]
    account["invoice"] = [
        made.invoice(
            id="in_1",
            created=ago(9),
            currency="usd",
            status="paid",
            total=1200,
            total_excluding_tax=1000,
            total_taxes=[{"amount": 150}, {"amount": 50}],
            amount_paid=1200,
            amount_paid_off_stripe=200,
            starting_balance=-100,
            ending_balance=0,
            number="INF-7",
            metadata={"infery_invoice_id": "INF-2", "other": "x"},
            parent={
                "type": "subscription_details",
                "subscription_details": {"subscription": "sub_1", "metadata": OURS},
            },
            lines={"object": "list", "data": lines, "has_more": False, "url": ""},
            status_transitions={
                "finalized_at": ago(9),
                "paid_at": ago(8),
                "voided_at": None,
                "marked_uncollectible_at": None,
            },
        )
    ]

    keyed(house, local).night(land)

    row = newest(house, "invoices")["in_1"]
    assert (row["total_minor"], row["total_excluding_tax_minor"], row["tax_minor"]) == (
        1200,
        1000,
        200,
    )
    assert (row["amount_paid_minor"], row["amount_paid_off_stripe_minor"]) == (1200, 200)
    assert (row["starting_balance_minor"], row["ending_balance_minor"]) == (-100, 0)
    assert (row["finalized_at"], row["paid_at"]) == (datetime(2026, 11, 11), datetime(2026, 11, 12))
    assert (row["number"], row["subscription_id"]) == ("INF-7", "sub_1")
    assert (row["charge_id"], row["payment_intent_id"], row["paid_out_of_band"]) == (None,) * 3
    assert json.loads(row["metadata"]) == {"infery_invoice_id": "INF-2"}
    assert json.loads(row["subscription_metadata"]) == OURS
    assert json.loads(row["line_metadata"]) == [OURS]  # the fourth; and the 13th, in another list


def test_an_object_from_before_basil_keeps_what_it_names(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account["invoice"] = [
        made.invoice(
            id="in_old",
            created=ago(600),
            status="paid",
            charge="ch_old",
            payment_intent="pi_old",
            paid_out_of_band=True,
            tax=70,
            subscription="sub_9",
            subscription_details={"metadata": OURS},
        )
    ]
    del account["invoice"][0]["total_taxes"], account["invoice"][0]["parent"]
    account["charge"] = [made.charge(id="ch_old", created=ago(600), invoice="in_old")]
    account["payment_intent"] = [
        made.payment_intent(id="pi_old", created=ago(600), invoice="in_old", metadata=OURS)
    ]
    account["credit_note"] = [
        made.credit_note(id="cn_old", created=ago(590), invoice="in_old", refund="re_old")
    ]

    keyed(house, local).night(land)

    row = newest(house, "invoices")["in_old"]
    assert (row["charge_id"], row["payment_intent_id"]) == ("ch_old", "pi_old")
    assert (row["paid_out_of_band"], row["tax_minor"], row["subscription_id"]) == (
        True,
        70,
        "sub_9",
    )
    assert json.loads(row["subscription_metadata"]) == OURS
    assert newest(house, "charges")["ch_old"]["stripe_invoice_id"] == "in_old"
    assert newest(house, "payment_intents")["pi_old"]["stripe_invoice_id"] == "in_old"
    assert newest(house, "credit_notes")["cn_old"]["refund_ids"] == ["re_old"]


@pytest.mark.parametrize(
    ("payment", "column"),
    [
        ({"type": "payment_intent", "payment_intent": "pi_1"}, "payment_intent_id"),
        ({"type": "charge", "charge": "pi_1"}, "charge_id"),
        ({"type": "payment_record", "payment_record": "pi_1"}, "payment_record_id"),
    ],
)
def test_an_invoice_payment_names_what_paid(
    house: Any, account: Account, local: LocalStripe, payment: dict[str, str], column: str
) -> None:
    account["invoice_payment"] = [
        made.invoice_payment(
            id="inpay_1", created=ago(1), invoice="in_1", payment=payment, amount_paid=500
        )
    ]

    keyed(house, local).night(land)

    row = newest(house, "invoice_payments")["inpay_1"]
    named = {row["payment_intent_id"], row["charge_id"], row["payment_record_id"]}
    assert (row[column], row["payment_type"], named) == ("pi_1", payment["type"], {"pi_1", None})
    assert (row["amount_paid_minor"], row["status"], row["stripe_invoice_id"]) == (
        500,
        "open",
        "in_1",
    )


def test_a_balance_transaction_is_kept_exactly(
    house: Any, account: Account, local: LocalStripe
) -> None:
    fee = {"amount": 30, "application": None, "currency": "gbp", "description": "a", "type": "tax"}
    account["balance_transaction"] = [
        made.balance_transaction(
            id="txn_1",
            created=ago(3),
            available_on=ago(-1),
            amount=1000,
            fee=30,
            fee_details=[fee],
            exchange_rate=0.790123456789,
            source="ch_1",
        )
    ]

    keyed(house, local).night(land)

    row = newest(house, "balance_transactions")["txn_1"]
    assert (row["amount_minor"], row["fee_minor"], row["net_minor"]) == (1000, 30, 970)
    assert row["exchange_rate"] == "0.790123456789"
    assert json.loads(row["fee_details"]) == [{"type": "tax", "amount": 30, "currency": "gbp"}]
    assert (row["available_at"], row["payout_id"]) == (datetime(2026, 11, 21), None)


def test_of_a_customer_only_the_billing_contact_is_kept(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account["customer"] = [
        made.customer(
            id="cus_1",
            created=ago(90),
            name="Acme",
            email="b@acme.example",
            phone="0123456",
            description="secret",
            metadata={"note": "secret"},
        )
    ]

    keyed(house, local).night(land)

    row = newest(house, "customers")["cus_1"]
    assert (row["name"], row["email"]) == ("Acme", "b@acme.example")
    assert "secret" not in str(row)
    assert "0123456" not in str(row)


def test_a_customer_is_read_again_with_each_new_charge(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account["customer"] = [made.customer(id="cus_1", created=ago(90), email="old@acme.example")]
    account["charge"] = [made.charge(id="ch_1", created=ago(80), customer="cus_1")]
    keyed(house, local).night(land)

    account["customer"][0]["email"] = "new@acme.example"
    account["charge"].append(made.charge(id="ch_2", created=ago(0), customer="cus_1"))
    house.night(land)

    assert newest(house, "customers")["cus_1"]["email"] == "new@acme.example"


# ---- payouts --------------------------------------------------------------------------------


def paid_out(account: Account) -> None:
    account["balance_transaction"] = [
        made.balance_transaction(id="txn_1", created=ago(9), amount=100, source="ch_1"),
        made.balance_transaction(id="txn_2", created=ago(8), amount=200, source="ch_2"),
        made.balance_transaction(id="txn_3", created=ago(1), amount=300, source="ch_3"),
    ]
    account["charge"] = [made.charge(id=f"ch_{n}", created=ago(10 - n)) for n in (1, 2, 3)]
    for row in account["balance_transaction"][:2]:
        row["_payout"] = "po_1"
    account["payout"] = [
        made.payout(id="po_1", created=ago(5), amount=300),
        made.payout(id="po_2", created=ago(4), amount=300, automatic=False),
    ]


def test_transactions_know_the_automatic_payout_they_went_out_with(
    house: Any, account: Account, local: LocalStripe
) -> None:
    paid_out(account)

    keyed(house, local).night(land)

    rows = newest(house, "balance_transactions")
    assert {name: row["payout_id"] for name, row in rows.items()} == {
        "txn_1": "po_1",
        "txn_2": "po_1",
        "txn_3": None,
    }
    assert len(house.rows("raw.stripe_balance_transactions")) == 3
    filtered = {one.parameters["payout"] for one in local.requests if "payout" in one.parameters}
    assert filtered == {"po_1"}
    assert not house.night(land)


def test_a_later_payout_is_told_of_each_transaction_in_it_once(
    house: Any, account: Account, local: LocalStripe
) -> None:
    paid_out(account)
    keyed(house, local).night(land)

    account["balance_transaction"][2]["_payout"] = "po_3"
    account["payout"].append(made.payout(id="po_3", created=ago(0), status="in_transit"))
    house.night(land)
    assert newest(house, "balance_transactions")["txn_3"]["payout_id"] == "po_3"
    assert asked(local, "/v1/charges/") == []  # it is no news of its charge

    account["payout"][-1]["status"] = "paid"
    house.night(land)
    assert newest(house, "payouts")["po_3"]["status"] == "paid"
    assert len(house.rows("raw.stripe_balance_transactions")) == 4


def test_a_payout_made_after_payouts_were_listed_has_its_transactions_too(
    house: Any, account: Account
) -> None:
    paid_out(account)

    def pay() -> None:
        account["balance_transaction"][2]["_payout"] = "po_3"
        move = made.balance_transaction(id="txn_4", created=ago(0), amount=-300, source="po_3")
        account["balance_transaction"].append(move | {"_payout": "po_3"})
        account["payout"].append(made.payout(id="po_3", created=ago(0), status="paid"))

    first = 2 * len(RESOURCES) + 2  # requests of the first night: the lists, and one payout's
    with meddling(account, {first + 2: pay}) as local:
        keyed(house, local).night(land)
        assert len(local.requests) == first
        house.night(land)

    rows = newest(house, "balance_transactions")
    assert {rows["txn_3"]["payout_id"], rows["txn_4"]["payout_id"]} == {"po_3"}


# ---- what is read again ---------------------------------------------------------------------


def test_a_new_balance_transaction_has_its_source_and_the_charge_behind_it_read_again(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account["charge"] = [
        made.charge(id="ch_old", created=ago(200)),
        made.charge(id="py_older", created=ago(300)),
        made.charge(id="ch_new", created=ago(1)),
    ]
    account["refund"] = [
        made.refund(id="re_old", created=ago(150), charge="ch_old"),
        made.refund(id="re_new", created=ago(1), charge="ch_new"),
    ]
    account["balance_transaction"] = [
        made.balance_transaction(id="txn_1", created=ago(1), source="ch_new")
    ]
    keyed(house, local).night(land)
    asked(local)

    account["refund"][0]["status"] = "failed"
    account["charge"][0]["refunded"] = False
    account["charge"][1]["amount_refunded"] = 7
    account["balance_transaction"] += [
        made.balance_transaction(id="txn_2", created=ago(0), source="re_old"),
        made.balance_transaction(id="txn_3", created=ago(0), source="py_older"),
        made.balance_transaction(id="txn_4", created=ago(0), source="fee_of_something"),
    ]
    house.night(land)

    assert newest(house, "refunds")["re_old"]["status"] == "failed"
    assert newest(house, "charges")["py_older"]["amount_refunded_minor"] == 7
    assert [path for path in asked(local) if path.count("/") == 3] == [
        "/v1/refunds/re_old",
        "/v1/charges/ch_old",
        "/v1/charges/py_older",
    ]
    assert not house.night(land)


def test_an_open_invoice_is_read_until_it_is_paid_and_then_no_more(
    house: Any, account: Account, local: LocalStripe
) -> None:
    owed = made.invoice(id="in_1", created=ago(40), status="open", total=500)
    paying = made.invoice_payment(id="inpay_1", created=ago(40), invoice="in_1")
    account["invoice"] = [owed, made.invoice(id="in_2", created=ago(1), status="paid")]
    account["invoice_payment"] = [
        paying,
        made.invoice_payment(id="inpay_2", created=ago(1), invoice="in_2", status="paid"),
    ]
    keyed(house, local).night(land)

    owed |= {"status": "paid", "amount_paid": 500}
    paying |= {"status": "paid", "amount_paid": 500}
    house.night(land)
    assert newest(house, "invoices")["in_1"]["status"] == "paid"
    assert newest(house, "invoice_payments")["inpay_1"]["amount_paid_minor"] == 500

    asked(local)
    assert not house.night(land)
    assert [path for path in asked(local) if path.count("/") == 3] == []


def test_a_draft_that_was_deleted_is_said_to_be_and_asked_for_no_more(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account["invoice"] = [made.invoice(id=f"in_{n}", created=ago(9 - n * 8)) for n in (0, 1)]
    keyed(house, local).night(land)

    del account["invoice"][0]
    house.night(land)
    assert newest(house, "invoices")["in_0"]["status"] == "deleted"
    assert not house.remarks

    asked(local)
    assert not house.night(land)
    assert [path for path in asked(local) if path.count("/") == 3] == []


def test_a_credit_note_changes_its_invoice_and_is_voided_with_it(
    house: Any, account: Account, local: LocalStripe
) -> None:
    owed = made.invoice(id="in_1", created=ago(40), status="open", total=500)
    note = made.credit_note(id="cn_1", created=ago(30), invoice="in_1", pre_payment_amount=100)
    account["invoice"] = [owed, made.invoice(id="in_2", created=ago(20), status="paid")]
    account["credit_note"] = [note, made.credit_note(id="cn_2", created=ago(1), invoice="in_9")]
    account["invoice"].append(made.invoice(id="in_9", created=ago(400), status="paid"))
    keyed(house, local).night(land)

    note["status"] = "void"
    owed["pre_payment_credit_notes_amount"] = 50
    account["invoice"][1]["post_payment_credit_notes_amount"] = 70
    account["credit_note"].append(made.credit_note(id="cn_3", created=ago(0), invoice="in_2"))
    house.night(land)

    assert newest(house, "credit_notes")["cn_1"]["status"] == "void"
    assert newest(house, "invoices")["in_2"]["post_payment_credit_notes_minor"] == 70


def updated(kind: str, thing: dict[str, Any]) -> dict[str, Any]:
    """The event of somebody's work in the dashboard, just now."""
    stated = {"id": f"evt_{kind}_{thing['id']}", "object": "event", "type": f"{kind}.updated"}
    now = int(datetime.now(UTC).timestamp())
    return stated | {"created": now, "livemode": True, "data": {"object": dict(thing)}}


def test_metadata_that_a_person_mends_on_an_old_charge_are_noticed_by_their_event(
    house: Any, account: Account, local: LocalStripe
) -> None:
    account["charge"] = [
        made.charge(id=f"ch_{n}", created=ago(300 - n), metadata=OURS) for n in range(3)
    ]
    account["charge"].append(made.charge(id="ch_new", created=ago(0)))
    account["invoice"] = [made.invoice(id="in_1", created=ago(300), status="paid")]
    account["invoice"].append(made.invoice(id="in_new", created=ago(0), status="paid"))
    keyed(house, local).night(land)

    account["charge"][1]["metadata"] = OURS | {"infery_invoice_id": "INF-9"}
    account["invoice"][0]["metadata"] = OURS
    account["event"] = [
        updated("charge", account["charge"][0]),  # something that is not kept
        updated("charge", account["charge"][1]),
        updated("invoice", account["invoice"][0]),
    ]
    asked(local)
    house.night(land)

    again = {path for path in asked(local) if path.count("/") == 3}
    assert again == {"/v1/charges/ch_1", "/v1/invoices/in_1"}
    assert json.loads(newest(house, "charges")["ch_1"]["metadata"])["infery_invoice_id"] == "INF-9"
    assert json.loads(newest(house, "invoices")["in_1"]["metadata"]) == OURS
    assert not house.night(land)


def test_a_key_that_may_not_read_events_reads_all_else(house: Any, account: Account) -> None:
    account["charge"] = [made.charge(id="ch_1", created=ago(3))]
    with serve(made.account(account, as_of=NOW) | {"forbidden": ["events"]}) as local:
        keyed(house, local).night(land)
        account["charge"].append(made.charge(id="ch_2", created=ago(0)))

        assert house.night(land)
        assert trouble(house.settings) is None

    assert len(house.rows("raw.stripe_charges")) == 2


# ---- what a night costs ---------------------------------------------------------------------


def test_a_night_without_news_asks_a_constant_number_of_times_and_once_for_what_is_not_final(
    house: Any, account: Account, local: LocalStripe
) -> None:
    paid_out(account)
    account["invoice"] = [
        made.invoice(id=f"in_{n}", created=ago(50 + n), status="paid") for n in range(30)
    ]
    keyed(house, local).night(land)
    asked(local)
    house.night(land)
    assert len(asked(local)) == 2 * len(RESOURCES) + 1  # and the events

    for row in account["invoice"][10:15]:
        row["status"] = "open"
    account["invoice"].append(made.invoice(id="in_99", created=ago(1), status="paid"))
    for number in range(5):  # these lie beyond what is listed again, and raw knows them as open
        account["invoice"].append(made.invoice(id=f"in_o{number}", created=ago(1), status="open"))
    house.night(land)
    asked(local)
    for row in account["invoice"][-5:]:
        row["created"] = ago(30)
    house.night(land)
    assert len(asked(local)) == 2 * len(RESOURCES) + 1 + 5


# ---- lists that do not hold still -----------------------------------------------------------


@pytest.fixture
def many(account: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Three pages of charges."""
    monkeypatch.setattr(stripe_api, "PAGE", 10)
    account["charge"] = [
        made.charge(id=f"ch_{n:03}", created=ago(n / 10), amount=n) for n in range(25)
    ]
    return account


CHARGES_BEGIN = 2 * [one.name for one in RESOURCES].index("charges")  # requests before


@pytest.mark.parametrize("request_number", range(6))
def test_an_object_that_comes_late_while_it_is_listed_is_found(
    house: Any, many: Account, request_number: int
) -> None:
    late = made.charge(id="ch_late", created=ago(0.05))

    def come() -> None:
        many["charge"].insert(0, late)

    with meddling(many, {CHARGES_BEGIN + request_number: come}) as local:
        keyed(house, local).night(land)

        # Before the last look at its page it is tonight's, after it the next night's.
        assert len(newest(house, "charges")) == (26 if request_number < 4 else 25)
        assert house.night(land) == (request_number >= 4)
        assert len(house.rows("raw.stripe_charges")) == 26


@pytest.mark.parametrize("request_number", range(6))
def test_an_object_that_changes_while_it_is_listed_is_kept_as_it_ends(
    house: Any, many: Account, request_number: int
) -> None:
    def change() -> None:
        many["charge"][10]["amount_refunded"] = 7

    with meddling(many, {CHARGES_BEGIN + request_number: change}) as local:
        keyed(house, local).night(land)
        assert len(house.rows("raw.stripe_charges")) == 25
        assert house.night(land) == (request_number > 4)  # after its page was read twice

    assert newest(house, "charges")["ch_010"]["amount_refunded_minor"] == 7


@pytest.mark.parametrize("request_number", range(1, 6))
def test_a_list_whose_place_was_deleted_begins_again(
    house: Any, many: Account, request_number: int
) -> None:
    def delete() -> None:
        many["charge"][:] = [row for row in many["charge"] if row["id"] not in {"ch_009", "ch_019"}]

    with meddling(many, {CHARGES_BEGIN + request_number: delete}) as local:
        keyed(house, local).night(land)

    assert len(newest(house, "charges")) == 23


@pytest.mark.parametrize("request_number", range(1, 6))
def test_a_draft_deleted_while_its_lines_are_read_is_no_trouble(
    house: Any, account: Account, request_number: int
) -> None:
    rows = [made.invoice_line(id=f"il_{n}") for n in range(25)]
    lines = {"object": "list", "data": rows, "has_more": False, "url": ""}
    account["invoice"] = [
        made.invoice(id=f"in_{n}", created=ago(n + 1), status="draft", lines=lines) for n in (0, 1)
    ]

    def delete() -> None:
        del account["invoice"][0]

    begin = 2 * [one.name for one in RESOURCES].index("invoices")
    with meddling(account, {begin + request_number: delete}) as local:
        keyed(house, local).night(land)
        house.night(land)

    assert newest(house, "invoices")["in_1"]["status"] == "draft"
    assert newest(house, "invoices").get("in_0", {"status": "deleted"})["status"] == "deleted"


def test_a_list_that_never_holds_still_ends_the_night_with_a_sentence(
    house: Any, many: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_api, "PASSES", 4)

    def change() -> None:
        many["charge"][0]["amount_refunded"] += 1

    with (
        meddling(many, dict.fromkeys(range(500), change)) as local,
        pytest.raises(StoreError, match="changed each of the 4 times it was read"),
    ):
        keyed(house, local).night(land)


# ---- large accounts -------------------------------------------------------------------------


def test_a_first_reading_that_broke_off_goes_on_where_it_was(
    house: Any, many: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_api, "WINDOW", 10)
    monkeypatch.setattr(stripe_api, "ATTEMPTS", 1)
    many["charge"] += [made.charge(id=f"ch_{n:03}", created=ago(n)) for n in range(25, 60)]
    with serve(made.account(many, as_of=NOW)) as whole:
        keyed(house, whole).night(land)
        rows = newest(house, "charges")
        cost = len(asked(whole))
    assert len(rows) == 60

    second = type(house)(house.folder / "second", house.models, house.settings)
    (second.folder / "data").mkdir(parents=True)
    broken = ["ok"] * (CHARGES_BEGIN + 14) + ["429"]
    with serve(made.account(many, as_of=NOW), faults=broken) as local:
        keyed(second, local)
        with pytest.raises(StoreError, match="did not answer"):
            second.night(land)
        assert second.rows("raw.stripe_charges") == []
        assert list((second.folder / "data" / ".stripe").glob("*.parquet"))
        asked(local)

        many["charge"].append(made.charge(id="ch_mid", created=ago(-0.1)))
        many["charge"][3]["amount_refunded"] = 1
        assert second.night(land)

        assert len(asked(local)) < cost
        found = newest(second, "charges")
        assert found.keys() == rows.keys() | {"ch_mid"}
        assert found["ch_003"]["amount_refunded_minor"] == 1
        monkeypatch.setattr(stripe_api, "WINDOW", 100)
        assert not second.night(land)
        assert not (second.folder / "data" / ".stripe").exists()


def test_a_reading_that_broke_off_among_customers_leaves_nothing_of_them(
    house: Any, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_api, "WINDOW", 10)
    monkeypatch.setattr(stripe_api, "PAGE", 10)
    monkeypatch.setattr(stripe_api, "ATTEMPTS", 1)
    account["customer"] = [
        made.customer(id=f"cus_{n}", created=ago(n), email=f"{n}@acme.example") for n in range(40)
    ]
    begin = 2 * [one.name for one in RESOURCES].index("customers")
    with serve(made.account(account, as_of=NOW), faults=["ok"] * (begin + 6) + ["429"]) as local:
        with pytest.raises(StoreError, match="did not answer"):
            keyed(house, local).night(land)

        assert not (house.folder / "data" / ".stripe").exists()
        house.night(land)

    assert len(newest(house, "customers")) == 40


def test_a_reading_that_goes_on_reads_again_the_customers_of_what_it_takes_over(
    house: Any, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(_: Any) -> None:
        raise StoreError("Stripe did not answer.")

    account["customer"] = [
        made.customer(id="cus_1", created=ago(90), email="old@acme.example"),
        made.customer(id="cus_2", created=ago(0)),  # lists of customers begin with the newest
    ]
    account["charge"] = [
        made.charge(id="ch_1", created=ago(80), customer="cus_1"),
        made.charge(id="ch_2", created=ago(40), customer="cus_2"),  # and so do those of charges
    ]
    with serve(made.account(account, as_of=NOW)) as local:
        keyed(house, local).night(land)
        account["customer"][0]["email"] = "new@acme.example"
        account["charge"] += [
            made.charge(id=f"ch_new_{n}", created=ago(n), customer="cus_1") for n in range(15)
        ]
        monkeypatch.setattr(stripe_api, "WINDOW", 10)
        with monkeypatch.context() as patch:
            patch.setattr(stripe_api.Reading, "_read_behind", break_off)
            with pytest.raises(StoreError):
                house.night(land)
        assert list((house.folder / "data" / ".stripe").glob("*.parquet"))
        del account["charge"][2:]  # nothing that is listed names the customer any more
        house.night(land)

    assert newest(house, "customers")["cus_1"]["email"] == "new@acme.example"


# ---- the key --------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", [one.name for one in RESOURCES])
def test_a_key_that_may_not_read_a_resource_is_told_so(
    house: Any, account: Account, resource: str
) -> None:
    served = made.account(account, as_of=NOW) | {"forbidden": [resource]}
    with serve(served) as local:
        keyed(house, local)

        assert resource.replace("_", " ") in (trouble(house.settings) or "")
        with pytest.raises(SettingsError, match=f"may not read {resource.replace('_', ' ')}"):
            house.night(land)


def test_a_key_that_may_read_all_is_no_trouble(house: Any, local: LocalStripe) -> None:
    keyed(house, local)

    assert trouble(house.settings) is None
    assert set(asked(local)) == {f"/v1/{one.name}" for one in RESOURCES}
