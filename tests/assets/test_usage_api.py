"""`GET /v1/usage`, listed over a real socket: pages, patience, breaks, and a token that is written
nowhere.
"""

import json
import logging
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from assets import requests, usage_api
from assets.usage_api import ListingBroken, MayPass, line_of, page_of
from pipelines.calendar import Clock, utc_now
from pipelines.night import Checked, Told
from pipelines.settings import RequestSource, Settings, SettingsError, load
from pipelines.simulator.usage_server import LocalUsage, faulty, request_row, serve, traffic
from pipelines.store import Draft
from tests.houses import CHECKOUT, House, published, request_models

TOKEN = "inf_secret-0123456789"
NOW = datetime(2026, 11, 20, 0, 30)
TODAY = NOW.date()
YESTERDAY = datetime(2026, 11, 19)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_api, "FIRST_WAIT_SECONDS", 0.001)


@pytest.fixture
def local() -> Iterator[LocalUsage]:
    with serve(LocalUsage(TOKEN, [])) as running:
        yield running


class Listed:
    """A house with this one source, whose wall clock a test may set."""

    def __init__(self, house: Any, local: LocalUsage, token: str | None = TOKEN) -> None:
        self.house = house
        source = RequestSource(
            name="gateway",
            gateway="infery",
            format="usage_api",
            location=local.url,
            token=SecretStr(token) if token is not None else None,
        )
        house.settings = Settings(folder=house.folder, requests=[source])
        self.local = local

    def night(self, now: datetime = NOW) -> bool:
        def land(draft: Draft, settings: Settings, clock: Clock) -> None:
            requests.land(draft, settings, clock)
            usage_api.land(draft, settings, clock)

        self.local.requests.clear()
        self.house.arrived_at = now - timedelta(hours=1)  # a night begins an hour after the last
        changed: bool = self.house.night(land, now)
        return changed

    @property
    def ids(self) -> list[str]:
        return sorted(row["request_id"] for row in self.house.rows("raw.requests"))

    @property
    def asked(self) -> list[tuple[str, str]]:
        """(day, what for) of each request that was answered well since the night began."""
        return [
            (one.parameters["start"][:10], "totals" if "group_by" in one.parameters else "requests")
            for one in self.local.requests
            if one.status == 200
        ]

    @property
    def remarks(self) -> list[str]:
        found: list[str] = self.house.remarks
        return found


@pytest.fixture
def listed(house: Any, local: LocalUsage) -> Listed:
    return Listed(house, local)


# ---- what lands -----------------------------------------------------------------------------


def test_every_request_lands_once_with_what_the_answer_states(listed: Listed) -> None:
    listed.local.rows += traffic(YESTERDAY, 25, 40 * MINUTE)
    listed.local.rows.append(
        request_row(99, NOW, workspace_id="ws_1", status=200, prompt="private")
    )

    listed.night()

    rows = {row["request_id"]: row for row in listed.house.rows("raw.requests")}
    assert len(rows) == len(listed.local.rows) == 26
    stated = {
        "gateway": "infery",
        "format": "usage_api",
        "completed_at": YESTERDAY + 40 * MINUTE,
        "model": "gpt-4o",
        "api_key_id": "key_1",
        "prompt_tokens": 101,
        "completion_tokens": 20,
        "total_tokens": 121,
        "credits": Decimal(2),
        "latency_ms": 800,
        "fallback_depth": 0,
        "workspace_id": None,
        "source": None,
    }
    assert {name: rows["req_000001"][name] for name in stated} == stated
    assert (rows["req_000099"]["workspace_id"], rows["req_000099"]["status"]) == ("ws_1", 200)
    [one, two] = listed.house.rows("raw.source_objects")
    assert [one["location"], one["read_count"], two["read_count"]] == [
        f"{listed.local.url}?start=2026-11-19&end=2026-11-20, page 1", 25, 1,
    ]  # fmt: skip


@pytest.mark.parametrize("page_limit", [1, 7, 60])
def test_pages_of_any_length_give_the_same(listed: Listed, page_limit: int) -> None:
    listed.local.rows += traffic(YESTERDAY, 60, 20 * MINUTE)
    listed.local.page_limit = page_limit

    listed.night()

    assert listed.ids == [f"req_{number:06}" for number in range(60)]


def test_credits_are_exact_and_a_row_that_would_need_guessing_is_set_aside_alone(
    listed: Listed,
) -> None:
    listed.local.rows += [
        request_row(1, YESTERDAY, credits_used="0.123456789"),
        request_row(2, YESTERDAY, credits_used="two"),
        request_row(3, YESTERDAY, credits_used=None),
        request_row(4, YESTERDAY, request_id=None),
    ]

    listed.night()

    [row] = listed.house.rows("raw.requests")
    assert row["credits"] == Decimal("0.123456789")
    assert [line["reason"] for line in listed.house.rows("raw.quarantine")] == [
        "request_id is missing",
        "credits_used is not a plain number",
        "credits_used is missing",
    ]


def test_a_night_with_nothing_new_changes_nothing(listed: Listed) -> None:
    listed.local.rows += traffic(YESTERDAY - 9 * DAY, 100, 180 * MINUTE)
    listed.local.page_limit = 3
    assert listed.night()

    assert not listed.night(NOW + timedelta(hours=1))


def test_a_day_whose_look_back_is_over_is_asked_for_no_more(listed: Listed) -> None:
    listed.night()
    first = [day for day, what in listed.asked if what == "requests"]
    assert first == [str(TODAY - number * DAY) for number in range(29, -1, -1)]

    listed.night(NOW + timedelta(hours=1))
    assert listed.asked == [
        *((str(TODAY - number * DAY), "requests") for number in (3, 2, 1, 0)),
        *((str(TODAY - number * DAY), "totals") for number in (3, 2, 1)),
    ]

    listed.night(NOW + DAY)
    assert {day for day, _ in listed.asked} == {str(TODAY + n * DAY) for n in (1, 0, -1, -2, -3)}


def test_a_late_request_within_the_look_back_is_found_and_the_others_are_duplicates(
    listed: Listed,
) -> None:
    listed.local.rows += traffic(YESTERDAY, 30, 40 * MINUTE)
    listed.local.page_limit = 10
    listed.night()
    listed.local.rows.append(request_row(500, YESTERDAY + 61 * MINUTE))

    assert listed.night(NOW + DAY)

    ids = {row["request_id"] for row in listed.house.rows("raw.requests")}
    assert ids == {row["request_id"] for row in listed.local.rows}
    contests = listed.house.rows("staging.request_contests")
    assert "req_000500" not in {row["request_id"] for row in contests}
    assert {row["credits"] for row in contests} == {Decimal(2)}


def test_a_request_that_appears_behind_the_cursor_is_found_the_next_night(listed: Listed) -> None:
    rows = listed.local.rows
    rows += traffic(YESTERDAY, 30, 40 * MINUTE)
    listed.local.page_limit = 10

    def slip_in() -> Iterator[str]:
        yield from ["ok"] * 29  # the days before, and the first page of yesterday
        rows.append(request_row(500, YESTERDAY + MINUTE))
        yield "ok"

    listed.local.faults = slip_in()
    listed.night()
    assert len(listed.ids) == 30

    listed.night(NOW + DAY)

    assert set(listed.ids) == {row["request_id"] for row in rows}


# ---- patience -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["429", "429 soon", "429 at", "500", "503", "cut", "torn"])
def test_a_fault_that_passes_loses_and_doubles_nothing(
    listed: Listed, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    listed.local.rows += traffic(YESTERDAY, 30, 40 * MINUTE)
    listed.local.page_limit = 8
    listed.local.faults = faulty(["ok", fault, fault, "ok"] * 25)
    caplog.set_level(logging.WARNING)

    listed.night()

    assert listed.ids == [f"req_{number:06}" for number in range(30)]
    assert "asking again in" in caplog.text
    assert not listed.remarks


def test_a_gateway_that_answers_too_late_is_asked_again(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_api, "SILENCE_SECONDS", 0.2)
    listed.local.rows += traffic(YESTERDAY, 5, MINUTE)
    listed.local.slow_seconds = 0.6
    listed.local.faults = faulty(["slow", "ok", "slow"])

    listed.night()

    assert len(listed.ids) == 5


def test_the_wait_is_what_the_gateway_says_or_grows_with_jitter() -> None:
    class State:
        attempt_number = 4

        def __init__(self, error: Exception) -> None:
            self.outcome = self
            self.error = error

        def exception(self) -> Exception:
            return self.error

    assert usage_api._wait(State(MayPass("busy", 7))) == 7  # type: ignore[arg-type]
    longest = usage_api.FIRST_WAIT_SECONDS * 2**3
    assert longest / 2 <= usage_api._wait(State(MayPass("busy"))) <= longest  # type: ignore[arg-type]
    assert usage_api._retry_after("7") == 7
    assert usage_api._retry_after("Wed, 25 Nov 2015 12:00:00 GMT") == 0
    assert usage_api._retry_after("soon") is None


# ---- listings that break off ----------------------------------------------------------------


def test_a_listing_that_breaks_off_lands_what_it_has_and_goes_on_at_its_cursor(
    listed: Listed,
) -> None:
    old = datetime(2026, 10, 22)  # the earliest day that is asked for
    listed.local.rows += [*traffic(old, 30, 40 * MINUTE), request_row(99, YESTERDAY)]
    listed.local.page_limit = 10
    listed.local.faults = faulty(["ok", "ok", *["500"] * 100])
    listed.night()
    assert listed.ids == [f"req_{number:06}" for number in range(20)]
    assert listed.remarks == [
        "Source 'gateway': the listing of 2026-10-22 broke off after 2 pages, because it answered "
        "500, 8 times; the next night goes on there."
    ]
    [day] = listed.house.rows("raw.usage_api_days")
    assert (day["usage_date"], day["page_count"]) == (old.date(), 2)
    assert day["cursor"]
    assert not listed.house.rows("raw.usage_api_totals")

    listed.local.faults = iter(())
    listed.night(NOW + timedelta(hours=1))

    first = listed.local.requests[0].parameters
    assert (first["start"][:10], first["cursor"]) == ("2026-10-22", day["cursor"])
    assert len(listed.ids) == 31
    assert not listed.remarks
    closed = {row["usage_date"]: row for row in listed.house.rows("raw.usage_api_days")}
    assert closed[old.date()]["cursor"] is None
    assert closed[old.date()]["page_count"] == 3


def test_a_gateway_that_is_down_changes_nothing_night_after_night(listed: Listed) -> None:
    listed.local.faults = faulty(["503"] * 100)
    listed.night()
    assert "broke off after 0 pages" in listed.remarks[0]

    assert not listed.night(NOW + timedelta(hours=1))


def test_a_day_that_was_begun_within_its_look_back_is_listed_again_before_it_is_closed(
    listed: Listed,
) -> None:
    listed.local.rows += traffic(YESTERDAY, 20, 40 * MINUTE)
    listed.local.page_limit = 10
    listed.local.faults = faulty([*["ok"] * 29, *["500"] * 100])
    listed.night()
    listed.local.rows.append(request_row(500, YESTERDAY + MINUTE))  # before the cursor
    listed.local.faults = iter(())

    listed.night(NOW + 5 * DAY)
    assert YESTERDAY.date() not in closed_days(listed)
    listed.night(NOW + 5 * DAY + timedelta(hours=1))

    assert YESTERDAY.date() in closed_days(listed)
    assert "req_000500" in listed.ids


def closed_days(listed: Listed) -> set[date]:
    rows = listed.house.rows("raw.usage_api_days")
    return {row["usage_date"] for row in rows if row["cursor"] is None}


def test_a_cursor_that_is_known_no_more_starts_its_day_again(listed: Listed) -> None:
    old = datetime(2026, 10, 22)
    listed.local.rows += traffic(old, 30, 40 * MINUTE)
    listed.local.page_limit = 10
    listed.local.faults = faulty(["ok", *["500"] * 100])
    listed.night()
    draft = listed.house._draft()
    rows = draft.query("from raw.usage_api_days").to_pylist()
    rows[0]["cursor"] = "of last year"
    shape = usage_api.TABLES["raw.usage_api_days"]
    draft.replace("raw.usage_api_days", usage_api.arrow_table(shape, rows))
    draft.publish(NOW)
    draft.close()
    listed.local.faults = iter(())

    listed.night(NOW + timedelta(hours=1))

    assert len(listed.ids) == 30
    assert old.date() in closed_days(listed)
    assert not listed.remarks


def test_a_zone_that_is_set_later_makes_sense_of_days_that_were_closed_in_vain(
    listed: Listed,
) -> None:
    old = datetime(2026, 10, 30, 10)
    listed.local.rows += [request_row(1, old), request_row(2, old + 10 * DAY)]
    listed.local.answer = lambda rows: [
        row | {"timestamp": row["timestamp"].removesuffix("Z")} for row in rows
    ]
    listed.night()
    assert not listed.ids
    source = listed.house.settings.requests[0].model_copy(update={"time_zone": "Europe/London"})
    listed.house.settings = listed.house.settings.model_copy(update={"requests": [source]})

    listed.night(NOW + timedelta(hours=1))

    assert {row["completed_at"] for row in listed.house.rows("raw.requests")} == {
        old,
        old + 10 * DAY,
    }
    assert not listed.night(NOW + timedelta(hours=2))


def test_who_asks_for_an_hour_is_asked_the_next_night(listed: Listed) -> None:
    listed.local.faults = faulty(["429 long"])

    listed.night()

    assert len(listed.local.requests) == 1
    assert "it answered 429, and it asks for 3600 s of patience" in listed.remarks[0]


def test_days_that_the_gateway_has_deleted_meanwhile_are_named(listed: Listed) -> None:
    listed.night()

    listed.night(NOW + 40 * DAY)

    assert listed.remarks[0].startswith(
        "Source 'gateway': the days 2026-11-17 to 2026-11-30 were not listed in time"
    )


# ---- shapes ---------------------------------------------------------------------------------


def test_a_row_is_written_as_it_was_stated_kept_fields_only() -> None:
    page = page_of(
        b'{"data": [{"request_id": "a", "credits_used": 123456789.123456789, "prompt": "x"},'
        b' {"request_id": "a", "request_id": "b", "credits_used": NaN}, null]}'
    )

    assert [line_of(row) for row in page.rows] == [
        '{"request_id": "a", "credits_used": 123456789.123456789}',
        '{"request_id": "a", "request_id": "b", "credits_used": NaN}',
        "null",
    ]


@pytest.mark.parametrize(
    ("answer", "cursor"),
    [
        ({"data": []}, None),
        ([], None),
        ({"usage": [], "has_more": True, "next_cursor": "c"}, "c"),
        ({"items": [], "next_page": 2}, "2"),
        ({"data": [], "has_more": False, "next_cursor": "c"}, None),
    ],
)
def test_several_shapes_of_a_page_are_read(answer: Any, cursor: str | None) -> None:
    assert page_of(json.dumps(answer).encode()).cursor == cursor


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"error": "none"}, "holds no one list of rows"),
        ({"data": [], "items": []}, "holds no one list of rows"),
        ({"data": {}}, "holds no one list of rows"),
        ("text", "holds no one list of rows"),
        ({"data": [], "has_more": True}, "says that there is more, and gives no cursor"),
        ({"data": [], "next_cursor": ["c"]}, "cursor of its answer is neither text nor number"),
    ],
)
def test_another_shape_breaks_the_listing_off(answer: Any, reason: str) -> None:
    with pytest.raises(ListingBroken, match=reason):
        page_of(json.dumps(answer).encode())


def test_the_answers_that_the_page_shows_are_read() -> None:
    text = (CHECKOUT / "docs" / "usage_api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

    pages = [page_of(answer.encode()) for answer in shown]

    assert [(len(page.rows), page.is_totals) for page in pages] == [(2, False), (2, True)]
    assert pages[0].cursor


def test_totals_in_place_of_requests_never_land(listed: Listed) -> None:
    listed.local.rows.append({"timestamp": str(YESTERDAY) + "Z", "model": "m", "credits_used": 5})
    totals = {"model": "m", "credits_used": 5, "request_count": 2}
    listed.local.answer = lambda rows: [totals for _ in rows]

    listed.night()

    assert not listed.ids
    assert "answered with totals for 2026-11-19, not with requests" in listed.remarks[0]


def test_a_page_of_requests_and_totals_is_not_taken_apart(listed: Listed) -> None:
    listed.local.rows += traffic(YESTERDAY, 2, MINUTE)
    totals = {"model": "m", "credits_used": 5, "request_count": 2}
    listed.local.answer = lambda rows: [*rows, totals] if rows else []

    listed.night()

    assert not listed.ids
    assert "requests and totals on one page" in listed.remarks[0]


# ---- totals ---------------------------------------------------------------------------------


def test_the_gateways_totals_are_kept_once_and_again_when_they_change(listed: Listed) -> None:
    listed.local.rows += traffic(YESTERDAY, 9, MINUTE)

    listed.night()
    listed.night(NOW + timedelta(hours=1))
    listed.local.rows.append(request_row(50, YESTERDAY, model="new"))
    listed.night(NOW + timedelta(hours=2))

    rows = [
        (row["model"], row["request_count"], row["credits"], row["arrived_at"].hour)
        for row in listed.house.rows("raw.usage_api_totals")
        if row["usage_date"] == YESTERDAY.date()
    ]
    first = [("claude-sonnet", 3, Decimal(6), 0), ("gpt-4o", 6, Decimal(12), 0)]
    assert sorted(rows, key=lambda row: (row[3], row[0])) == [
        *first,
        *((model, count, credits, 2) for model, count, credits, _ in first),
        ("new", 1, Decimal(2), 2),
    ]


def test_a_gateway_without_totals_is_said_and_its_requests_land(listed: Listed) -> None:
    listed.local.rows += traffic(YESTERDAY, 3, MINUTE)
    listed.local.has_totals = False

    listed.night()

    assert len(listed.ids) == 3
    assert "could not be read, because it answered 400" in listed.remarks[0]


# ---- a whole night --------------------------------------------------------------------------

SETTINGS = """
[warehouse]
root = "data"

[[requests]]
name = "gate-way"
gateway = "infery"
format = "usage_api"
location = "{url}"
workspace_id = "ws_1"
"""


def a_house(folder: Path, local: LocalUsage, token: str = TOKEN) -> House:
    models = request_models(
        folder / "sql", "marts/usage_by_model", "checks/usage_api_totals__agree_with_what_landed"
    )
    environment = {"METERHOUSE_REQUESTS_GATE_WAY_TOKEN": token}
    return House(folder, models, SETTINGS.format(url=local.url), environment)


def test_a_night_warns_where_the_gateways_totals_are_not_what_landed(
    tmp_path: Path, local: LocalUsage
) -> None:
    house = a_house(tmp_path / "house", local)
    yesterday = datetime.combine(utc_now().date() - DAY, datetime.min.time())
    local.rows += traffic(yesterday, 9, MINUTE)

    happened = house.night(utc_now())

    [claim] = [
        event for event in happened if isinstance(event, Checked) and "totals" in event.claim
    ]
    assert claim.passed
    assert house.value("select sum(credits) from marts.usage_by_model") == Decimal(18)

    local.totals = [{"model": "gpt-4o", "request_count": 7, "credits_used": 14}]
    happened = house.night(utc_now())

    [claim] = [
        event for event in happened if isinstance(event, Checked) and "totals" in event.claim
    ]
    assert (claim.passed, claim.is_warning) == (False, True)
    assert claim.found == (
        f"on {yesterday.date()}, raw.usage_api_totals: source gate-way says of claude-sonnet what "
        "landed; expected 0.000000000 credits in 0 requests, found 6.000000000 credits in 3 "
        "requests"
    )


def test_the_token_is_written_nowhere(
    tmp_path: Path, local: LocalUsage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    house = a_house(tmp_path / "house", local)
    local.rows += traffic(datetime.combine(utc_now().date(), datetime.min.time()), 3, MINUTE)
    local.faults = faulty(["500", "ok", "torn"])
    told = [event.sentence for event in house.night(utc_now()) if isinstance(event, Told)]
    local.token = "another"  # it answers that this token is unknown, and repeats it
    with pytest.raises(SettingsError, match="METERHOUSE_REQUESTS_GATE_WAY_TOKEN") as refused:
        house.night(utc_now())
    said = house.run("--debug", "nightly")
    doctor = house.ask("doctor")

    assert said.returncode == 1
    assert "refused the token of source 'gate-way' (401)" in said.stderr
    assert "✗ source gate-way: The gateway refused the token" in doctor.stdout
    spoken = [*told, str(refused.value), said.stdout, said.stderr, doctor.stdout, doctor.stderr]
    assert TOKEN not in "".join([*spoken, caplog.text, repr(house.settings)])
    files = [path for path in house.folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    with published(house.root) as connection:
        assert connection.execute("select count(*) from marts.requests").fetchone() == (3,)


def test_doctor_says_that_the_gateway_answers(tmp_path: Path, local: LocalUsage) -> None:
    said = a_house(tmp_path / "house", local).ask("doctor")

    assert f"source gate-way: requests can be read at {local.url}" in said.stdout


# ---- settings -------------------------------------------------------------------------------


def test_a_source_without_a_token_says_which_variable_to_set(house: Any, local: LocalUsage) -> None:
    with pytest.raises(SettingsError, match="set METERHOUSE_REQUESTS_GATEWAY_TOKEN"):
        Listed(house, local, token=None).night()


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ключ"])
def test_a_token_that_fits_no_header_is_refused_and_not_shown(
    house: Any, local: LocalUsage, token: str
) -> None:
    with pytest.raises(SettingsError, match="holds a blank, or a sign that no token has") as told:
        Listed(house, local, token=token).night()

    assert token not in str(told.value)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("landing/requests", "is no URL"),
        ("http://api.infery.ai/v1/usage", "is not encrypted"),
        ("https://me:word@api.infery.ai/v1/usage", "holds more than a place"),
        ("https://api.infery.ai/v1/usage?token=1", "holds more than a place"),
    ],
)
def test_a_location_that_no_token_may_go_to_is_refused(location: str, reason: str) -> None:
    source = RequestSource(name="a", format="usage_api", location=location)

    with pytest.raises(SettingsError, match=reason):
        usage_api.checked_location(source)


def test_a_certificate_that_can_not_be_trusted_is_no_reason_to_go_on(listed: Listed) -> None:
    url = listed.local.url.replace("http://", "https://")  # a server that speaks no TLS
    source = listed.house.settings.requests[0].model_copy(update={"location": url})
    listed.house.settings = listed.house.settings.model_copy(update={"requests": [source]})

    listed.night()

    assert "because its certificate can't be trusted" in listed.remarks[0]


def test_a_redirect_is_not_followed(listed: Listed) -> None:
    listed.local.faults = faulty(["moved"])

    listed.night()

    assert "because it answered 302" in listed.remarks[0]


def test_a_token_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "meterhouse.toml"
    file.write_text(SETTINGS.format(url="https://api.infery.ai/v1/usage") + f'token = "{TOKEN}"\n')

    with pytest.raises(SettingsError, match="set METERHOUSE_REQUESTS_GATE_WAY_TOKEN") as told:
        load(file, {})

    assert TOKEN not in str(told.value)
