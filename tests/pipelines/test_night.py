"""A night: the same twice, whole after any kill, stopped by any broken claim, unseen by its
readers.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from email.message import Message
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler

from exports import files
from exports.alerts import Alert, Answer
from pipelines import contents, restatements
from pipelines.models import SQL, Built, Checked, Models
from pipelines.night import Event, NightFailed, Published
from pipelines.simulator import gateway, stripe_server
from pipelines.store import StoreError, arrow_table
from tests.houses import (
    AS_OF,
    CHECKOUT,
    ROLL_UPS,
    House,
    command,
    environment,
    failed_claims,
    furnish,
    request,
    request_models,
    spend_log,
    stands_on,
    traffic,
    until_failure,
)
from tests.kills import Trials, check_tidy, nights, state


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "house")


# ---- twice ----------------------------------------------------------------------------------


class Inbox(MessageHandler):
    """A mail server's handler that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []

    def handle_message(self, message: Message) -> None:
        self.messages.append(message)


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, int]]:
    handler = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, port
    controller.stop()


def test_a_second_night_changes_no_byte_and_sends_nothing(
    tmp_path: Path, inbox: tuple[Inbox, int]
) -> None:
    post, port = inbox
    gateway.simulate(
        tmp_path / "house", days=1, requests_per_day=40, seed=5, last_day=date(2026, 11, 20)
    )
    with stripe_server.serve(tmp_path / "house" / "stripe_account.json") as stripe:
        house = House(
            tmp_path / "house",
            environment={
                "METERHOUSE_STRIPE_API_BASE": stripe.base_url,
                "METERHOUSE_STRIPE_API_KEY": "rk_live_local",
                "METERHOUSE_ALERTS_EMAIL_SMTP_HOST": "127.0.0.1",
                "METERHOUSE_ALERTS_EMAIL_SMTP_PORT": str(port),
                "METERHOUSE_ALERTS_EMAIL_RECIPIENTS": "ops@example.com",
            },
        )
        budgets = "budget_id,workspace_id,scope,subject_id,threshold_credits\n"
        workspace = house_workspace(house)
        house.put("directory/budgets.csv", f"{budgets}bud_x,{workspace},workspace,,1\n")

        house.night(sinks=contents.sinks())
        before, sent, asked = house.bytes(), len(post.messages), len(stripe.requests)
        outside = {path: path.stat().st_mtime_ns for path in (house.root / "exports").rglob("*")}
        second = house.ask("nightly", "--as-of", "2026-11-21T00:00:00Z")

    assert second.returncode == 0, second.stderr
    assert "Nothing new" in second.stdout
    assert sent > 0
    assert len(post.messages) == sent
    assert asked > 0
    assert {asked.method for asked in stripe.requests} == {"GET"}
    assert house.bytes() == before
    assert {
        path: path.stat().st_mtime_ns for path in (house.root / "exports").rglob("*")
    } == outside


def house_workspace(house: House) -> str:
    """A workspace that the simulated directory names."""
    [path] = (house.folder / "landing" / "directory").glob("workspaces.csv")
    return path.read_text().splitlines()[1].split(",")[0]


def test_a_night_with_a_later_clock_tells_nothing_again(furnished: House, tmp_path: Path) -> None:
    house = copy_of(furnished, tmp_path)
    told: list[Any] = []

    house.night(AS_OF + timedelta(hours=3), sinks=listening(told))

    assert house.value("select count(*) from ops.alert_deliveries where outcome = 'sent'") > 0
    assert told == []


# ---- killed ---------------------------------------------------------------------------------


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1])
def test_a_killed_night_leaves_the_tables_of_an_undisturbed_one(tmp_path: Path, seed: int) -> None:
    def kill(is_second: bool) -> int:
        folder = tmp_path / ("second" if is_second else "first")
        with nights(folder) as running:
            return len(Trials(running, folder, is_second).run(seed, kills=2))

    with ThreadPoolExecutor(2) as pool:
        died = list(pool.map(kill, [False, True]))

    assert died == [2, 2]


def test_the_real_command_survives_a_kill(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.put("requests/a.jsonl", traffic(20))
    night = subprocess.Popen(
        command(house, "nightly", "--as-of", str(AS_OF)),
        env=environment(house),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while night.poll() is None and not (house.root / "snapshot.json").exists():
        threading.Event().wait(0.02)  # the moment between publishing and warehouse.duckdb
    night.kill()
    night.wait()

    house.night()

    undisturbed = House(tmp_path / "undisturbed")
    undisturbed.put("requests/a.jsonl", traffic(20))
    undisturbed.night()
    assert house.answers() == undisturbed.answers()
    check_tidy(house)
    outcomes = {row["outcome"] for row in nights_of(house)}
    assert outcomes <= {"killed", "published", "nothing new"}


def nights_of(house: House) -> list[dict[str, Any]]:
    """The journal of the nights, oldest first."""
    files = sorted((house.root / "ops" / "nights").glob("[0-9]*.json"))
    return [json.loads(path.read_text()) for path in files]


# ---- stopped --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Violation:
    """A model broken so that one claim must notice: what each column says instead, and what
    follows the select. Or a source, a rogue, and the tables that it lands.
    """

    claim: str
    table: str
    model: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    rest: str = ""
    rogue: Callable[..., None] | None = None
    lands: frozenset[str] = frozenset()

    @property
    def breaks(self) -> frozenset[str]:
        """The tables that are not what they should be."""
        return self.lands or frozenset({self.model})

    @property
    def looks_at(self) -> frozenset[str]:
        """All that the claim stands on."""
        return stands_on(self.claim.removeprefix("grain of "))

    def is_apart_from(self, other: "Violation") -> bool:
        """Whether each claim can only be broken by its own violation, in one night."""
        broken = (self.looks_at & other.breaks) | (self.breaks & other.looks_at)
        return self.claim != other.claim and not broken

    def __str__(self) -> str:
        return f"{self.claim} by {self.model or self.table}"


def named(violations: Sequence[Violation]) -> str:
    """What pytest calls a night."""
    more = f" and {len(violations) - 1} more" if len(violations) > 1 else ""
    return f"{violations[0]}{more}"


def in_nights(violations: Sequence[Violation]) -> list[list[Violation]]:
    """The violations in as few nights as keep them apart."""
    nights: list[list[Violation]] = []
    for violation in violations:
        for night in nights:
            if all(violation.is_apart_from(other) for other in night):
                night.append(violation)
                break
        else:
            nights.append([violation])
    return nights


def land_a_row_uncounted(draft: Any, _settings: Any, _clock: Any) -> None:
    """A source that writes requests and says nothing of them."""
    draft.bind(draft, "raw.requests")
    select = "select * replace ('ghost_' || request_id as request_id) from raw.requests limit 1"
    rows = draft.connection.sql(select).to_arrow_table()
    draft.append("raw.requests", rows, rows["usage_date"][0].as_py())


def restate_what_never_was(draft: Any, _settings: Any, clock: Any) -> None:
    """A history that ends somewhere else than at what is published."""
    table = restatements.TABLE
    rows = draft.query(
        """select usage_date, 1 as restatement_number, $as_of::timestamp as changed_at,
            0 as request_count_before, request_count as request_count_after,
            0 as credits_before, credits + 0.000000001 as credits_after,
            []::varchar[] as source_objects
        from marts.conservation where stage = 'staging' order by usage_date limit 1""",
        as_of=clock.as_of,
    ).to_pylist()
    draft.replace(table, arrow_table(restatements.TABLES[table], rows), rows[0]["usage_date"])


def state_totals_of_nothing(draft: Any, _settings: Any, clock: Any) -> None:
    """A gateway whose totals name a model of which nothing landed."""
    day = date(2026, 11, 20)
    total = {
        "source_name": "api",
        "gateway": "infery",
        "usage_date": day,
        "model": "unheard of",
        "credits": Decimal(1),
        "arrived_at": clock.arrived_at,
    }
    shape = contents.raw_tables()["raw.usage_api_totals"]
    draft.append("raw.usage_api_totals", arrow_table(shape, [total]), day)


def keep_what_a_failed_refund_took(draft: Any, _settings: Any, clock: Any) -> None:
    """A refund that failed, and whose money never came back to the balance."""
    refund = {
        "refund_id": "re_1",
        "origin": "api",
        "livemode": True,
        "charge_id": "ch_1",
        "created_at": clock.arrived_at,
        "status": "failed",
        "amount_minor": 100,
        "currency": "usd",
        "record_sha256": "of a refund",
        "arrived_at": clock.arrived_at,
    }
    movement = refund | {
        "balance_transaction_id": "txn_1",
        "reporting_category": "refund",
        "source_id": "re_1",
        "amount_minor": -100,
        "fee_minor": 0,
        "net_minor": -100,
    }
    shapes = contents.raw_tables()
    for name, row in (
        ("raw.stripe_refunds", refund),
        ("raw.stripe_balance_transactions", movement),
    ):
        kept = {column: row.get(column) for column in shapes[name].columns}
        draft.append(name, arrow_table(shapes[name], [kept]))


def breaks(claim: str, model: str, rest: str = "", table: str = "", **columns: str) -> Violation:
    """`claim` is broken when `model` says `columns` and not its own, or is followed by `rest`."""
    return Violation(claim, table or model, model, columns, rest)


RECONCILIATION = "marts.invoice_reconciliation"
VIOLATIONS = [
    breaks("conservation__agrees", "staging.requests", "where status <> 429"),
    breaks(
        "conservation__agrees", "staging.request_entries", "where entry <> 'reversed'",
        table="marts.usage_by_model",
    ),
    breaks("conservation__agrees", "marts.usage_by_model", credits="credits + 0.000000001"),
    breaks("conservation__agrees", "marts.usage_by_key", "where api_key_id is not null"),
    breaks("conservation__agrees", "marts.usage_by_member", "where member_id is null"),
    breaks("conservation__agrees", "marts.credit_ledger", credits="credits * 2"),
    breaks("grain of staging.requests", "staging.requests", "cross join range(2)"),
    breaks("grain of marts.usage_by_key", "marts.usage_by_key", "cross join range(2)"),
    breaks("grain of marts.usage_by_model", "marts.usage_by_model", usage_date="null::date"),
    breaks(
        "credit_balances__close_as_they_open", "marts.credit_balances",
        opening_credits="opening_credits + 1",
    ),
    breaks(
        "credit_ledger__one_grant_for_each_paid_invoice", "marts.credit_ledger",
        "where kind = 'usage'",
    ),
    breaks(
        "credit_ledger__no_lot_is_negative", "marts.credit_ledger",
        credits="if(kind = 'clawback', -1000000, credits)",
    ),
    breaks(
        "credit_ledger__money_back_has_its_movement", "marts.credit_ledger",
        "where kind <> 'clawback'",
    ),
    breaks(
        "credit_backing__sums_to_the_grants", "marts.credit_backing",
        backed_credits="backed_credits + 0.000000001",
    ),
    breaks(
        "source_objects__every_record_accounted_for", "ops.source_objects",
        folded_count="folded_count + 1",
    ),
    Violation(
        "source_objects__landed_is_stored", "raw.requests", rogue=land_a_row_uncounted,
        lands=frozenset({"raw.requests"}),
    ),
    Violation(
        "restatements__lead_to_what_is_published", "marts.restatements",
        rogue=restate_what_never_was, lands=frozenset({"marts.restatements"}),
    ),
    breaks(
        "fallback_estimates__tell_of_every_fallback", "marts.fallback_estimates",
        request_count="request_count + 1",
    ),
    breaks("keys__every_key_that_spent_is_known", "marts.keys", "where false"),
    breaks("budget_alerts__cover_every_anomaly", "marts.budget_alerts", "where kind = 'budget'"),
    breaks("invoices__net_and_vat_make_the_total", "marts.invoices", vat_minor="vat_minor + 1"),
    breaks(
        "invoice_reconciliation__agreeing_rows_differ_by_nothing", RECONCILIATION,
        difference_minor="difference_minor + if(standing = 'agrees', 1, 0)",
    ),
    breaks(
        "invoice_reconciliation__captured_money_is_conserved", RECONCILIATION,
        charged_minor="charged_minor + if(item_kind = 'charge', 1, 0)",
    ),
    breaks(
        "invoice_reconciliation__every_status_is_known", RECONCILIATION, reason="null::varchar"
    ),
    breaks(
        "invoice_reconciliation__everything_is_in_one_row", RECONCILIATION,
        "where item_kind <> 'charge'",
    ),
    breaks(
        "invoice_reconciliation__invoice_rows_sum_their_charges", RECONCILIATION,
        refunded_minor="refunded_minor + 1",
    ),
    breaks(
        "payout_items__net_is_amount_less_fee", "staging.balance_transactions",
        "right join range(1) on true", balance_transaction_id="'txn_1'",
        amount_minor="100::bigint", fee_minor="5::bigint", net_minor="94::bigint",
    ),
    breaks(
        "payouts__are_the_net_of_their_movements", "staging.payouts",
        "right join range(1) on true", table="marts.payouts", payout_id="'po_1'",
        automatic="true", reconciliation_status="'completed'", amount_minor="100::bigint",
    ),
    breaks("spend_ranges__add_up_to_usage", "marts.spend_ranges", credits="credits * 2"),
    breaks(
        "spend_ranges__limit_is_the_largest_part", "marts.spend_ranges",
        upper_limit="upper_limit + 0.000000001",
    ),
    breaks(
        "spend_ranges__verdict_follows_from_numbers", "marts.spend_ranges",
        verdict="if(verdict = 'normal', 'high', verdict)",
    ),
]  # fmt: skip
WARNINGS = [
    breaks(
        "alert_deliveries__nothing_is_received_twice", "ops.alert_deliveries",
        "cross join range(2) as copies (copy)",
        attempted_at="attempted_at + to_microseconds(copy)",
    ),
    breaks(
        "log_gaps__every_usual_hour_is_told_of", "marts.log_gaps", "right join range(1) on true",
        gateway="'infery'", source_name="'gateway'", started_at="timestamp '2026-11-20'",
        ended_at="timestamp '2026-11-20 05:00:00'", hour_count="5::bigint",
        usual_count="50::bigint", request_count="0::bigint", is_silent="false",
        recoverable_until="timestamp '2026-12-20'", days_left="29::bigint",
    ),
    breaks("keys__rotations_form_no_circle", "marts.keys", generation="null::bigint",
        replaces_api_key_id="api_key_id"),
    breaks(
        "invoice_reconciliation__refunds_and_disputes_have_charges", "staging.refunds",
        table=RECONCILIATION, charge_id="'ch_nobody'",
    ),
    breaks(
        "invoice_reconciliation__refunds_sum_to_the_charges_own", "staging.charges",
        table="staging.refunds", origin="'api'", amount_refunded_minor="amount_refunded_minor + 7",
    ),
    breaks(
        "invoice_reconciliation__stripe_bills_add_up", "staging.stripe_invoices",
        "right join range(1) on true", table=RECONCILIATION, stripe_invoice_id="'in_1'",
        status="'paid'", is_bill="true", total_minor="100::bigint", tax_minor="10::bigint",
        total_excluding_tax_minor="80::bigint",
    ),
    breaks(
        "payout_items__sum_to_what_was_captured", "staging.balance_transactions",
        "right join range(1) on true", table="marts.payout_items",
        balance_transaction_id="'txn_1'", reporting_category="'charge'", source_id="'ch_1'",
        currency="'usd'", amount_minor="5::bigint", fee_minor="0::bigint", net_minor="5::bigint",
    ),
    Violation(
        "payout_items__failed_refunds_and_won_disputes_come_back", "marts.payout_items",
        rogue=keep_what_a_failed_refund_took,
        lands=frozenset({"raw.stripe_refunds", "raw.stripe_balance_transactions"}),
    ),
    Violation(
        "usage_api_totals__agree_with_what_landed", "raw.usage_api_totals",
        rogue=state_totals_of_nothing, lands=frozenset({"raw.usage_api_totals"}),
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> House:
    """After its first night."""
    house = House(tmp_path_factory.mktemp("furnished") / "house")
    furnish(house, first_day=17)  # three days are the fewest that an anomaly needs before it
    house.put("proxy/a.jsonl", [spend_log("req_20_1"), spend_log("llm_1")])
    assert failed_claims(house.night(sinks=listening([]))) == {}
    return house


def copy_of(house: House, folder: Path) -> House:
    """The same house elsewhere, for a test that goes on from there."""
    shutil.copytree(house.folder, folder / "house")
    return House(folder / "house")


def listening(told: list[Any]) -> dict[str, ModuleType]:
    """A sink that keeps the alerts it is told."""

    def send(alert: Alert) -> Answer:
        told.append(alert)
        return Answer("sent", "heard")

    sink = ModuleType("told")
    sink.send = send  # type: ignore[attr-defined]
    return {"told": sink}


def broken_models(violations: Sequence[Violation], folder: Path) -> Models:
    """The house's own SQL with models broken from outside, whatever they say inside."""
    shutil.copytree(SQL, folder)
    for violation in violations:
        if not violation.model:
            continue
        statement = contents.models().models[violation.model]
        path = folder / f"{violation.model.replace('.', '/')}.sql"
        text = path.read_text()
        unknown = set(violation.columns) - set(statement.columns)
        assert not unknown, f"{violation.model} no longer has {unknown}"
        lines = text.splitlines()
        header = [line for line in lines if line.startswith("--")]
        columns = ", ".join(
            f"{violation.columns[name]} as {name}" if name in violation.columns else name
            for name in statement.columns
        )
        select = f"select {columns} from (\n{text}\n) as whole {violation.rest}"
        path.write_text("\n".join([*header, select, ""]))
    models = Models(contents.raw_tables(), folder)
    broken = {violation.model for violation in violations}
    for name in contents.models().models.keys() - broken:  # to ask the engine again takes a second
        models._types[name] = contents.models().types(name)
    return models


def the_night_over(
    house: House, violations: Sequence[Violation], folder: Path
) -> tuple[list[Event], Exception | None]:
    """What happened in a night over what is broken, and what stopped it."""
    sources = contents.sources()
    for violation in violations:
        if violation.rogue is not None:
            rogue = ModuleType("rogue")
            rogue.TABLES = {}  # type: ignore[attr-defined]
            rogue.land = violation.rogue  # type: ignore[attr-defined]
            sources = (*sources, rogue)
    models = broken_models(violations, folder / "sql")
    return until_failure(house.events(models=models, sources=sources))


def check_noticed(happened: Sequence[Event], violations: Sequence[Violation]) -> dict[str, str]:
    """Asserts that each claim noticed what breaks it, and names the table; returns what failed."""
    failed = failed_claims(happened)
    for violation in violations:
        assert violation.claim in failed, failed
        assert violation.table in failed[violation.claim]
    return failed


def check_stopped(
    house: House, before: dict[str, str], stopped: Exception | None, *found: str
) -> None:
    """Asserts that nothing was published, and that the message names day, table and two numbers."""
    assert isinstance(stopped, NightFailed), stopped
    assert "Nothing was published" in str(stopped)
    assert "the snapshot of 2026-11-21 00:00 UTC stays" in str(stopped)
    for said in (str(stopped), *found):
        assert re.search(r"on 2026-11-\d\d, |over all days, |on no one day, ", said)
        assert re.search(r"(raw|staging|marts|ops)\.[a-z_]+|exports/[a-z_]+", said)
        assert re.search(r"expected .+, found .+", said)
    after = house.bytes()
    assert after["snapshot.json"] == before["snapshot.json"]
    assert after["warehouse.duckdb"] == before["warehouse.duckdb"]
    house.check_whole()
    assert house.value("select count(*) from marts.requests") > 0
    assert nights_of(house)[-1]["outcome"] == "failed"


@pytest.mark.parametrize("violations", in_nights(VIOLATIONS), ids=named)
def test_a_broken_claim_stops_publication(
    furnished: House, violations: list[Violation], tmp_path: Path
) -> None:
    before = furnished.bytes()

    happened, stopped = the_night_over(furnished, violations, tmp_path)

    failed = check_noticed(happened, violations)
    warned = {event.claim for event in happened if isinstance(event, Checked) and event.is_warning}
    assert not warned & failed.keys()
    check_stopped(furnished, before, stopped, *(failed[one.claim] for one in violations))


def test_an_export_that_loses_credits_stops_publication(
    furnished: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = furnished.bytes()
    export = files.EXPORTS["usage_by_key"]
    broken = replace(export, columns=export.columns.replace("credits", "credits * 2 as credits"))
    monkeypatch.setitem(files.EXPORTS, "usage_by_key", broken)

    happened, stopped = until_failure(furnished.events())

    failed = failed_claims(happened)
    assert "exports/usage_by_key" in failed["conservation__agrees"]
    check_stopped(furnished, before, stopped, failed["conservation__agrees"])


@pytest.mark.parametrize("violations", in_nights(WARNINGS), ids=named)
def test_a_broken_warning_is_said_and_does_not_stop_the_night(
    furnished: House, violations: list[Violation], tmp_path: Path
) -> None:
    house = copy_of(furnished, tmp_path)

    happened, stopped = the_night_over(house, violations, tmp_path)

    assert stopped is None
    check_noticed(happened, violations)
    assert any(isinstance(event, Published) for event in happened)


def test_every_claim_has_a_planted_violation() -> None:
    models = contents.models()
    blocking = {name for name, claim in models.claims.items() if not claim.is_warning}

    planted = {violation.claim for violation in VIOLATIONS}
    warned = {violation.claim for violation in WARNINGS}

    assert {name for name in planted if not name.startswith("grain of ")} == blocking
    assert warned == set(models.claims) - blocking


# ---- read meanwhile -------------------------------------------------------------------------

READER = """
import sys, time
import duckdb
from pathlib import Path
from tests.kills import look_for_mixture

path, stop, seen, reads = Path(sys.argv[1]), Path(sys.argv[2]), [], 0
while not stop.exists():
    with duckdb.connect(str(path), read_only=True) as connection:
        first = look_for_mixture(connection)
        time.sleep(0.1)
        assert look_for_mixture(connection) == first
    reads += 1
    if not seen or seen[-1] != first:
        seen.append(first)
        print(first[0], first[1], flush=True)
print("reads", reads)
"""


def test_a_reader_never_errs_and_never_sees_two_snapshots(tmp_path: Path) -> None:
    house = House(tmp_path / "house", request_models(tmp_path / "sql", *ROLL_UPS))
    house.put("requests/0.jsonl", [*traffic(20, 6)])
    stop = tmp_path / "stop"
    published = {shown(house.night())}

    with subprocess.Popen(
        [sys.executable, "-c", READER, str(house.root / "warehouse.duckdb"), str(stop)],
        cwd=CHECKOUT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as reader:
        for number in range(1, 7):
            late = request(f"late_{number}", "2026-11-19T08:00:00Z", credits_used=f"{number}.5")
            again = request("req_20_1", "2026-11-20T23:59:00Z", credits_used=f"{number}.25")
            house.put(f"requests/{number}.jsonl", [late, again, *traffic(20, 3, f"n{number}")])
            published.add(shown(house.night()))
        stop.touch()
        output, errors = reader.communicate(timeout=60)

    assert reader.returncode == 0, errors
    *lines, last = output.splitlines()
    seen = [tuple(line.split()) for line in lines]
    assert set(seen) <= published
    assert len(seen) == len(set(seen)) > 3
    assert int(last.split()[1]) > 6


def shown(happened: list[Event]) -> tuple[str, str]:
    """The last snapshot a night published, and its credits by the objects' own manifest."""
    [*_, last] = [event.snapshot for event in happened if isinstance(event, Published)]
    partitions = last.tables["marts.usage_by_key"].values()
    credits = [Decimal(str(item.credits)) for part in partitions for item in part.objects]
    return last.snapshot_id, str(sum(credits))


# ---- two at once ----------------------------------------------------------------------------


def test_a_second_night_that_may_not_wait_leaves_with_a_sentence(tmp_path: Path) -> None:
    house = House(tmp_path / "house", request_models(tmp_path / "sql"))
    house.put("requests/a.jsonl", [request()])

    with house.store.lock(), pytest.raises(StoreError, match="Another night is at work"):
        house.night(wait_seconds=0.1)

    assert house.night()


def test_two_nights_at_once_publish_one_after_the_other(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.put("requests/a.jsonl", traffic(20))
    both = [
        subprocess.Popen(
            command(house, "nightly", "--as-of", str(AS_OF)),
            env=environment(house),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]

    said = [night.communicate(timeout=120) for night in both]

    assert [night.returncode for night in both] == [0, 0], said
    assert sorted("Published" in out for out, _ in said) == [False, True]
    assert house.value("select sum(request_count)::bigint from marts.usage_by_key") == 24
    assert sorted(row["outcome"] for row in nights_of(house)) == ["nothing new", "published"]


# ---- only what is touched -------------------------------------------------------------------


def built(happened: list[Event], table: str) -> list[str]:
    """The days of a table that a night built."""
    return [str(e.day) for e in happened if isinstance(e, Built) and e.table == table]


def test_a_late_line_builds_only_the_days_it_touches(furnished: House, tmp_path: Path) -> None:
    house = copy_of(furnished, tmp_path)
    before = house.tables()
    house.put("requests/late.jsonl", [request("late", "2026-11-18T23:59:59.999999Z")])

    happened = house.night()

    for table in ("raw.requests", "marts.usage_quarter_hourly", "marts.usage_by_key"):
        assert built(happened, table) == ["2026-11-18"]
    after = house.tables()["marts.usage_by_model"]
    assert [day for day in after if after[day] != before["marts.usage_by_model"][day]] == [
        "2026-11-18"
    ]
    assert set(before["raw.requests"]["2026-11-18"]) < set(
        house.tables()["raw.requests"]["2026-11-18"]
    )


def test_a_change_of_the_directory_opens_the_days_that_asked_for_it(house: House) -> None:
    furnish(house, first_day=19)  # on no other day is there a request without a workspace
    house.put("requests/mine.jsonl", [request("mine", "2026-11-19T10:00:00Z", workspace_id=None)])
    house.night()
    keys = (house.folder / "landing" / "directory" / "keys.csv").read_text(encoding="utf-8")
    mine = "select workspace_id from staging.requests where request_id = 'mine'"
    assert house.value(mine) == "ws_1"

    house.put("directory/keys.csv", keys + "key_new,ws_1,New\n")
    happened = house.night()

    assert built(happened, "staging.keys") == ["None"]
    assert built(happened, "marts.usage_quarter_hourly") == []

    house.put("directory/keys.csv", keys.replace("key_1,ws_1", "key_1,ws_2"))
    happened = house.night()

    assert built(happened, "marts.usage_quarter_hourly") == ["2026-11-19"]
    assert house.value(mine) == "ws_2"


def test_rebuild_gives_the_bytes_of_many_nights(house: House, tmp_path: Path) -> None:
    furnish(house, first_day=20)
    house.night()
    moved = request("req_20_2", "2026-11-19T10:00:00Z", credits_used="9")
    house.put("proxy/b.jsonl", [spend_log("req_20_1", 3.5), spend_log("req_20_2")])
    house.put("requests/late.jsonl", [moved, *traffic(19, 5)])
    house.night()
    house.put("requests/later.jsonl", traffic(20, 7, "more"))
    house.night()
    incremental = state(house)
    all_at_once = House(tmp_path / "other")
    shutil.copytree(house.folder / "landing", all_at_once.folder / "landing")

    house.night(everything=True)
    all_at_once.night()

    rebuilt, fresh = state(house), state(all_at_once)
    ways = {name for name in incremental if name != "rows of ops.source_objects"}
    assert {name: rebuilt[name] for name in ways} == {name: incremental[name] for name in ways}
    ways.remove("bytes of marts.restatements")  # what was published before is no fact of raw
    assert {name: fresh[name] for name in ways} == {name: incremental[name] for name in ways}


def test_backfill_builds_the_days_it_is_told(furnished: House, tmp_path: Path) -> None:
    house = copy_of(furnished, tmp_path)
    before = house.answers()
    days = {date(2026, 11, 18), date(2026, 11, 19)}

    happened = house.night(forced=lambda day: day in days)

    assert built(happened, "marts.usage_by_key") == ["2026-11-18", "2026-11-19"]
    assert house.answers() == before
