"""The local Stripe, asked by the real SDK and, where the SDK would not ask so, by hand."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import stripe

from pipelines.simulator import stripe_account, stripe_server
from pipelines.simulator.gateway import simulate
from pipelines.simulator.stripe_account import balance_transaction, charge, dispute, refund
from pipelines.simulator.stripe_server import LocalStripe, seeded_faults, serve

LIVE, TEST = "rk_live_reader", "sk_test_reader"
NOON = 1_795_000_000


def account(count: int = 250) -> dict[str, Any]:
    """Charges one second apart but for every tenth, which shares its second with the one before."""
    charges = [
        charge(
            id=f"ch_{n:04d}",
            amount=100 + n,
            created=NOON + n - (n % 10 == 0),
            customer=f"cus_{n % 3}",
            payment_intent=f"pi_{n:04d}",
            balance_transaction=f"txn_{n:04d}",
        )
        for n in range(count)
    ]
    objects = {
        "charge": [*charges, charge(id="ch_test", created=NOON + 5, livemode=False)],
        "refund": [
            refund(id="re_1", charge="ch_0007", created=NOON + 900, amount=50),
            refund(id="re_2", charge="ch_0007", created=NOON + 901, amount=57),
            refund(id="re_test", charge="ch_test", created=NOON + 902),
        ],
        "dispute": [dispute(id="dp_1", charge="ch_0008", created=NOON, status="lost")],
        "balance_transaction": [
            balance_transaction(id=f"txn_{n:04d}", amount=100 + n, fee=5, source=f"ch_{n:04d}")
            for n in range(count)
        ],
        "payment_intent": [],
    }
    return stripe_account.account(objects, as_of=NOON + 86_400)


@pytest.fixture(scope="module")
def local() -> Iterator[LocalStripe]:
    with serve(account()) as running:
        yield running


def client(local: LocalStripe, key: str = LIVE, *, retries: int = 0) -> stripe.StripeClient:
    return stripe.StripeClient(
        key, base_addresses={"api": local.base_url}, max_network_retries=retries
    )


def ask(
    local: LocalStripe, path: str, key: str | None = LIVE, **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, JSON and headers of a request made by hand."""
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(local.base_url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)


def ids(pages: Any) -> list[str]:
    return [row["id"] for row in pages]


def test_paging_gives_every_charge_once_newest_first(local: LocalStripe) -> None:
    pages = client(local).v1.charges.list({"limit": 100}).auto_paging_iter()
    found = [(row["created"], row["id"]) for row in pages]

    assert len(found) == len(set(found)) == 250
    assert found == sorted(found, reverse=True)
    assert [asked.parameters.get("starting_after") for asked in local.requests[-3:]] == [
        None,
        "ch_0150",
        "ch_0050",
    ]


def test_a_page_holds_ten_unless_told_otherwise(local: LocalStripe) -> None:
    page = client(local).v1.charges.list()

    assert len(page.data) == 10
    assert page.has_more


def test_paging_backwards_gives_the_same_charges(local: LocalStripe) -> None:
    charges = client(local).v1.charges
    backwards = ids(charges.list({"ending_before": "ch_0240", "limit": 4}).auto_paging_iter())

    assert backwards == [f"ch_{n:04d}" for n in range(241, 250)]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"gte": NOON + 20, "lt": NOON + 23}, ["ch_0022", "ch_0021"]),
        ({"gt": NOON + 20, "lte": NOON + 23}, ["ch_0023", "ch_0022", "ch_0021"]),
        ({"lt": NOON + 1}, ["ch_0000"]),
        ({"gte": NOON + 19, "lte": NOON + 19}, ["ch_0020", "ch_0019"]),
        ({"gt": NOON + 900}, []),
    ],
)
def test_a_created_window_is_kept_to(
    local: LocalStripe, window: dict[str, int], expected: list[str]
) -> None:
    parameters: Any = {"created": window, "limit": 1}
    pages = client(local).v1.charges.list(parameters)

    assert ids(pages.auto_paging_iter()) == expected


def test_the_filters_stripe_has_are_there(local: LocalStripe) -> None:
    v1 = client(local).v1

    assert ids(v1.charges.list({"payment_intent": "pi_0009"})) == ["ch_0009"]
    assert len(ids(v1.charges.list({"customer": "cus_1", "limit": 100}))) == 83
    assert ids(v1.refunds.list({"charge": "ch_0007"})) == ["re_2", "re_1"]
    assert ids(v1.disputes.list({"charge": "ch_0007"})) == []
    assert ids(v1.balance_transactions.list({"source": "ch_0007"})) == ["txn_0007"]


def test_what_is_asked_to_be_expanded_is(local: LocalStripe) -> None:
    charges = client(local).v1.charges
    window: Any = {"gte": NOON + 7, "lte": NOON + 7}
    plain = charges.list({"created": window}).data[0].to_dict()
    expand = ["data.balance_transaction", "data.refunds"]
    whole = charges.list({"created": window, "expand": expand}).data[0].to_dict()

    assert (plain["balance_transaction"], plain["refunds"]) == ("txn_0007", None)
    assert whole["balance_transaction"]["net"] == 102
    assert ids(whole["refunds"]["data"]) == ["re_2", "re_1"]
    nested = client(local).v1.refunds.retrieve("re_1", {"expand": ["charge.balance_transaction"]})
    assert nested.to_dict()["charge"]["balance_transaction"]["id"] == "txn_0007"


def test_an_object_is_read_by_its_id(local: LocalStripe) -> None:
    assert client(local).v1.charges.retrieve("ch_0031")["amount"] == 131

    with pytest.raises(stripe.InvalidRequestError, match="No such charge: 'ch_none'") as refused:
        client(local).v1.charges.retrieve("ch_none")
    assert refused.value.http_status == 404
    assert refused.value.code == "resource_missing"


def test_a_key_sees_its_own_mode_only(local: LocalStripe) -> None:
    test = client(local, TEST).v1

    assert ids(test.charges.list()) == ["ch_test"]
    assert ids(test.refunds.list()) == ["re_test"]
    assert "re_test" not in ids(client(local).v1.refunds.list())
    assert ids(test.balance_transactions.list()) == []
    with pytest.raises(stripe.InvalidRequestError, match="exists in live mode"):
        test.charges.retrieve("ch_0001")


def test_events_are_those_of_the_last_thirty_days() -> None:
    held = account(3)
    held["as_of"] = NOON + stripe_server.EVENT_SECONDS + 1
    held["objects"]["refund"] = []
    with serve(held) as running:
        events = client(running).v1.events.list().data
        kinds = ids(client(running).v1.events.list({"type": "charge.dispute.closed"}))

    # The two that are a second older are gone: ch_0000 and the dispute.
    assert [event["data"]["object"]["id"] for event in events] == ["ch_0002", "ch_0001"]
    assert kinds == []


def test_the_account_says_who_it_is(local: LocalStripe) -> None:
    status, answer, _ = ask(local, "/v1/account")

    assert (status, answer["object"], answer["default_currency"]) == (200, "account", "gbp")


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1/charges?invoice=in_1", 400, "Received unknown parameter: invoice"),
        ("/v1/charges?created[since]=1", 400, "Received unknown parameter: created[since]"),
        ("/v1/charges?limit=101", 400, "Invalid limit"),
        ("/v1/charges?limit=0", 400, "Invalid limit"),
        ("/v1/charges?created[gte]=yesterday", 400, "Invalid integer: yesterday"),
        ("/v1/charges?starting_after=ch_none", 400, "No such charge: 'ch_none'"),
        ("/v1/charges?starting_after=ch_0001&ending_before=ch_0002", 400, "You may only specify"),
        ("/v1/charges?expand[]=data.invoice", 400, "This property cannot be expanded (invoice)"),
        ("/v1/charges?expand[]=invoice", 400, "This property cannot be expanded (invoice)"),
        ("/v1/wallets", 404, "Unrecognized request URL (GET: /v1/wallets)"),
        ("/v1/account/x", 404, "Unrecognized request URL"),
    ],
)
def test_what_stripe_would_refuse_is_refused_in_its_words(
    local: LocalStripe, path: str, status: int, message: str
) -> None:
    answered, body, headers = ask(local, path)

    assert answered == status
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"].startswith(message)
    assert headers["request-id"].startswith("req_")


def test_a_missing_or_misshapen_key_is_refused(local: LocalStripe) -> None:
    assert ask(local, "/v1/charges", None)[0] == 401
    with pytest.raises(stripe.AuthenticationError, match=r"Invalid API Key provided: \*+word"):
        client(local, "password").v1.charges.list()


def test_the_version_is_checked_and_echoed(local: LocalStripe) -> None:
    _, _, headers = ask(local, "/v1/charges", **{"Stripe-Version": stripe_account.API_VERSION})
    status, body, _ = ask(local, "/v1/charges", **{"Stripe-Version": "2019-01-01"})

    assert headers["stripe-version"] == stripe_account.API_VERSION
    assert (status, "2019-01-01" in body["error"]["message"]) == (400, True)


def test_the_sdk_gives_up_on_429_unless_stripe_says_try_again() -> None:
    with serve(account(3), faults=["429", "429 retry", "ok"]) as running:
        with pytest.raises(stripe.RateLimitError):
            client(running, retries=2).v1.charges.list()
        found = client(running, retries=2).v1.charges.list()

    assert len(found.data) == 3
    assert [asked.status for asked in running.requests] == [429, 429, 200]


def test_the_sdk_tries_again_after_a_failure_of_stripes() -> None:
    with serve(account(3), faults=["500"]) as running:
        found = client(running, retries=2).v1.charges.list()

    assert len(found.data) == 3
    assert [asked.fault for asked in running.requests] == ["500", "ok"]


def test_the_sdk_gives_up_on_an_answer_that_breaks_off() -> None:
    with (
        serve(account(3), faults=["cut"]) as running,
        pytest.raises(stripe.APIConnectionError, match="IncompleteRead"),
    ):
        client(running, retries=2).v1.charges.list()

    assert [asked.fault for asked in running.requests] == ["cut"]


def test_a_slow_answer_runs_into_the_clients_time_limit() -> None:
    with (
        serve(account(3), faults=["slow"], slow_seconds=0.6) as running,
        pytest.raises((TimeoutError, urllib.error.URLError)),
    ):
        urllib.request.urlopen(running.base_url + "/v1/charges", timeout=0.2)


def test_seeded_faults_repeat_and_leave_a_way_through() -> None:
    first, again = seeded_faults(9, share=0.9), seeded_faults(9, share=0.9)
    faults = [next(first) for _ in range(500)]

    assert faults == [next(again) for _ in range(500)]
    assert set(faults) == stripe_server.FAULTS.keys() - {"slow"}
    runs = "".join("." if fault == "ok" else "x" for fault in faults).split(".")
    assert max(len(run) for run in runs) == 2


def test_an_unknown_fault_is_refused_at_the_start() -> None:
    with (
        pytest.raises(ValueError, match="There is no fault 'earthquake'"),
        serve(account(1), faults=["ok", "earthquake"]),
    ):
        pass


def test_a_page_asked_for_during_a_change_sees_the_change() -> None:
    held = account(12)
    with serve(held) as running:
        pages = client(running).v1.charges.list().auto_paging_iter()
        seen = [next(pages)["id"]]
        held["objects"]["charge"].append(charge(id="ch_new", created=NOON + 500))
        seen += ids(pages)

    assert len(seen) == 12
    assert "ch_new" not in seen


def test_the_simulated_account_is_served_from_its_file(tmp_path: Path) -> None:
    simulate(tmp_path, days=1, requests_per_day=10, seed=1, last_day=date(2026, 11, 20))
    written = json.loads((tmp_path / "stripe_account.json").read_text())["objects"]

    with serve(tmp_path / "stripe_account.json") as running:
        v1 = client(running).v1
        found = {
            "charge": ids(v1.charges.list({"limit": 3}).auto_paging_iter()),
            "refund": ids(v1.refunds.list().auto_paging_iter()),
            "dispute": ids(v1.disputes.list().auto_paging_iter()),
            "balance_transaction": ids(v1.balance_transactions.list().auto_paging_iter()),
            "payment_intent": ids(v1.payment_intents.list().auto_paging_iter()),
            "invoice": ids(v1.invoices.list().auto_paging_iter()),
            "invoice_payment": ids(v1.invoice_payments.list().auto_paging_iter()),
            "payout": ids(v1.payouts.list().auto_paging_iter()),
            "customer": ids(v1.customers.list().auto_paging_iter()),
        }
        [payout, *_] = v1.payouts.list().data
        inside = list(v1.balance_transactions.list({"payout": payout.id}).auto_paging_iter())
        assert sum(row.net for row in inside if row.source != payout.id) == payout.amount
        [bill, *_] = v1.invoices.list({"expand": ["data.customer"]}).data
        assert bill.to_dict()["customer"]["email"].endswith(".example")
        [payment] = v1.invoice_payments.list({"invoice": bill.id}).data
        assert payment.payment.type == "payment_intent"
        assert len(v1.invoices.line_items.list(bill.id).data) == 1
        for row in v1.charges.list({"expand": ["data.payment_intent"], "limit": 100}).data:
            assert row["payment_intent"]["id"].startswith("pi_3")

    assert {kind: sorted(some) for kind, some in found.items()} == {
        kind: sorted(row["id"] for row in rows) for kind, rows in written.items()
    }
