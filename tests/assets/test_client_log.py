"""What callers logged: headers and last chunks, in several shapes, read alike by the engine and
line by line.
"""

import json
import random
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from assets.requests import Landing
from pipelines.models import Models
from pipelines.reading import SpooledObject
from tests.houses import CHECKOUT, House, Line, csv, jsonl, request

SETTINGS = """
[warehouse]
root = "data"

[[requests]]
name = "gateway"
gateway = "infery"
format = "canonical"
location = "landing/requests"

[[requests]]
name = "bot"
gateway = "infery"
format = "client_log"
location = "landing/bot"
workspace_id = "ws_1"
"""
AT = "2026-11-20T10:00:00.250Z"
USAGE = {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150}


def flat(request_id: str = "req_1", **stated: Any) -> Line:
    """The headers stand in the line itself; underscores in keywords are their hyphens."""
    line = {
        "timestamp": AT,
        "x-request-id": request_id,
        "x-credits-used": "2",
        "x-model-used": "gpt-4o",
    }
    return line | {
        name.replace("_", "-") if name.startswith("x_") else name: value
        for name, value in stated.items()
    }


def headed(request_id: str = "req_1", headers: Line | None = None, **stated: Any) -> Line:
    """The headers as a server sends them, among others."""
    sent = {
        "Content-Type": "text/event-stream",
        "Set-Cookie": "session=private",
        "X-Request-Id": request_id,
        "X-Credits-Used": "2",
        "X-Model-Used": "gpt-4o",
    }
    return {"timestamp": AT, "headers": sent | (headers or {})} | stated


def chunk(credits: float | int | str = 2, **stated: Any) -> Line:
    """The last chunk of a stream."""
    return {"choices": [], "usage": USAGE, "credits_used": credits} | stated


@pytest.fixture
def house(tmp_path: Path, some_models: Models) -> House:
    return House(tmp_path / "house", some_models, SETTINGS)


def requests(house: House) -> list[dict[str, Any]]:
    return house.rows("select * from marts.requests order by request_id")


def reasons(house: House) -> list[str]:
    return [row["reason"] for row in house.rows("from ops.quarantine order by line_number")]


def test_the_same_facts_are_read_from_every_shape(house: House) -> None:
    lower = {name.lower(): value for name, value in headed("lower")["headers"].items()}
    lines = [
        flat("flat", usage=USAGE),
        flat("flat_with_chunk", chunk=chunk()),
        headed("titled", chunk=chunk()),
        {"timestamp": AT, "headers": lower, "body": {"usage": USAGE, "credits_used": 2}},
        {"timestamp": AT, "x-request-id": "chunk_only", "x-model-used": "gpt-4o"}
        | {"usage": USAGE, "credits_used": 2},
    ]
    house.put("bot/a.jsonl", lines)

    house.night()

    found = requests(house)
    assert [row["request_id"] for row in found] == [
        "chunk_only", "flat", "flat_with_chunk", "lower", "titled",
    ]  # fmt: skip
    stated = {
        "gateway": "infery",
        "completed_at": datetime(2026, 11, 20, 10, 0, 0, 250_000),
        "workspace_id": "ws_1",
        "source": "api",
        "member_id": None,
        "model": "gpt-4o",
        "fallback_from": None,
        "status": None,
        "prompt_tokens": 120,
        "completion_tokens": 30,
        "total_tokens": 150,
        "credits": Decimal(2),
    }
    for row in found:
        assert {name: row[name] for name in stated} == stated, row["request_id"]
    streamed = {row["request_id"] for row in found if row["is_streamed"]}
    assert streamed == {"flat_with_chunk", "titled"}


def test_the_lines_that_the_page_shows_are_read(house: House) -> None:
    page = (CHECKOUT / "docs" / "client_log.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    house.put("bot/a.jsonl", lines)

    house.night()

    found = requests(house)
    assert [row["request_id"] for row in found] == ["req_1", "req_2", "req_3", "req_4"]
    assert [row["total_tokens"] for row in found] == [None, None, 150, 150]
    assert {row["credits"] for row in found} == {Decimal(2)}
    assert [row["fallback_from"] for row in found] == [None, "gpt-5", None, None]


def test_a_fallback_and_what_the_caller_knows_of_its_call_are_kept(house: House) -> None:
    line = headed(
        headers={"X-Fallback-From": "gpt-5", "X-Fallback-Depth": "1", "X-Model-Used": "gpt-4o"},
        requested_model="gpt-5",
        status=200,
        latency_ms=812,
        stream=False,
        api_key_id="key_1",
    )
    house.put("bot/a.jsonl", [line])

    house.night()

    [row] = requests(house)
    stated = {
        "requested_model": "gpt-5",
        "model": "gpt-4o",
        "fallback_from": "gpt-5",
        "fallback_depth": 1,
        "status": 200,
        "latency_ms": 812,
        "is_streamed": False,
        "api_key_id": "key_1",
    }
    assert {name: row[name] for name in stated} == stated


def test_credits_that_are_nowhere_or_differ_set_the_line_aside(house: House) -> None:
    lines = [
        flat("good"),
        flat("none", x_credits_used=None),
        headed("empty", {"X-Credits-Used": ""}),
        flat("differ", chunk=chunk("2.5")),
        headed("differ", chunk=chunk(3)),
        flat("agree", x_credits_used="2.50", chunk=chunk(2.5)),
        {"timestamp": AT, "x-credits-used": 1},
        flat("model", headers={"X-Model-Used": "gpt-5"}),
        flat("tokens", usage=USAGE, chunk=chunk(usage={"prompt_tokens": 7})),
    ]
    house.put("bot/a.jsonl", lines)

    house.night()

    assert [row["request_id"] for row in requests(house)] == ["agree", "good"]
    places = house.rows("select line_number, reason from ops.quarantine order by 1")
    assert [(row["line_number"], row["reason"]) for row in places] == [
        (2, "credits are missing"),
        (3, "credits are missing"),
        (4, "credits is stated twice, and differs"),
        (5, "credits is stated twice, and differs"),
        (7, "x-request-id is missing"),
        (8, "x-model-used is stated twice, and differs"),
        (9, "prompt_tokens is stated twice, and differs"),
    ]
    assert house.rows(
        "select read_count, accepted_count, quarantined_count from ops.source_objects"
    ) == [{"read_count": 9, "accepted_count": 2, "quarantined_count": 7}]


EXACT = {
    "123456789.123456789": "123456789.123456789",  # as a double: …791
    "0.000000001": "0.000000001",
    "1e-9": "0.000000001",
    "2.5E1": "25.000000000",
    "8947030.44518": "8947030.445180000",
    "999999999.999999999": "999999999.999999999",
}


def test_credits_are_exact_however_deep_they_stand(house: House) -> None:
    expected = {}
    for shape in ("flat", "headers", "Headers", "chunk", "body"):
        place = "headers" if shape == "Headers" else shape
        name = {"headers": "x-credits-used", "Headers": "X-Credits-Used"}.get(shape, "credits_used")
        for number, exact in EXACT.items():
            line: Line = {"timestamp": AT, "x-request-id": f"{shape}_{number}"}
            line |= {name: "@"} if shape == "flat" else {place: {name: "@"}}
            text = json.dumps(line).replace('"@"', number) + "\n"
            house.put(f"bot/{len(expected)}.jsonl", text)
            expected[f"{shape}_{number}"] = exact

    house.night()

    assert {row["request_id"]: f"{row['credits']:f}" for row in requests(house)} == expected


GUESSES: list[tuple[Line | str, str]] = [
    (flat(x_credits_used=True), "x-credits-used is not a plain number"),
    (flat(chunk=chunk("2 credits")), "credits_used in chunk is not a plain number"),
    (flat(chunk=chunk("1.0000000001")), "credits_used in chunk has more than nine places"),
    (flat(chunk=[chunk()]), "chunk is not an object"),
    (flat(chunk=json.dumps(chunk())), "chunk is not an object"),
    (flat(usage={"prompt_tokens": 1.5}), "prompt_tokens in usage is not a whole number"),
    (headed(headers={"x-request-id": "req_2"}), "x-request-id is given twice in headers"),
    (headed(headers={"X-Request-Id": 7}), "x-request-id in headers is not text"),
    (headed(headers={"X-Model-Used": "\ud800"}), "x-model-used holds an unpaired surrogate"),
    (
        json.dumps(flat()).replace("}", ', "chunk": {"credits_used": 2, "credits_used": 2}}'),
        "credits_used is given twice in chunk",
    ),
    (
        json.dumps(flat()).replace("}", ', "x\\u002drequest-id": "req_2"}'),
        "a field is given twice",
    ),
    (flat(timestamp="2026-11-20"), "timestamp is not an RFC 3339 instant"),
]


def test_what_would_need_guessing_is_set_aside_alone(house: House) -> None:
    """Each in an object of its own, between two good lines."""
    for number, (line, _) in enumerate(GUESSES):
        lines = [flat(f"before_{number}"), line, flat(f"then_{number}")]
        house.put(f"bot/{number:02}.jsonl", lines)

    house.night()

    good = {f"{name}_{number}" for name in ("before", "then") for number in range(len(GUESSES))}
    assert {row["request_id"] for row in requests(house)} == good
    aside = house.rows("select location, line_number, reason from ops.quarantine order by location")
    assert [(row["line_number"], row["reason"]) for row in aside] == [
        (2, reason) for _, reason in GUESSES
    ]


def test_other_headers_prompts_and_answers_never_reach_the_disk(house: House) -> None:
    answer = {"choices": [{"message": {"content": "private"}}], "credits_used": 2, "usage": USAGE}
    lines = [
        headed("good", body=answer, messages=[{"content": "private"}], user="private"),
        headed("bad", body=answer | {"credits_used": 3}, messages=[{"content": "private"}]),
    ]
    house.put("bot/a.jsonl", lines)
    house.put("bot/b.jsonl", [*lines[:1], headed("more", body=answer)])

    house.night()

    kept = [
        file for file in house.root.rglob("*") if file.is_file() and b"private" in file.read_bytes()
    ]
    assert (len(requests(house)), kept) == (2, [])
    assert "private" not in json.dumps(house.rows("from raw.requests"), default=str)


def test_a_flat_log_may_be_csv(house: House) -> None:
    house.put("bot/a.csv", csv([flat("a"), flat("b", x_credits_used="0.000000001")]))
    nested = '"{""credits_used"": 5}"'
    house.put("bot/b.csv", csv([flat("c", chunk=nested)]))

    house.night()

    found = {row["request_id"]: row["credits"] for row in requests(house)}
    assert found == {"a": Decimal(2), "b": Decimal("0.000000001")}
    assert reasons(house) == ["chunk is not an object"]


def test_beside_the_gateways_log_it_corroborates_and_a_difference_is_listed(house: House) -> None:
    house.put("requests/a.jsonl", jsonl([request("req_1", credits_used="2", latency_ms=None)]))
    house.put("bot/a.jsonl", [flat("req_1", x_credits_used="3", latency_ms=700), flat("req_2")])

    house.night()

    first, second = requests(house)
    assert (first["credits"], first["latency_ms"], first["model"]) == (Decimal(2), 700, "gpt-5")
    assert second["credits"] == Decimal(2)
    [conflict] = house.rows("from ops.conflicts")
    assert conflict["differs_in"] == "credits, model"


# ---- the engine and the line-by-line reader ---------------------------------------------------


def some_line(rng: random.Random, number: int) -> str:
    """A line of any shape; a field is odd once in twenty times, or so."""

    def one(plain: Any, *odd: Any) -> Any:
        return rng.choice(odd) if rng.random() < 0.05 else plain

    credits = rng.choice(["2", 2, 2.0, "2.5", 1e-9, 0, 12345678.123456789])
    spell = rng.choice([str, str, str.title, str.upper, _mixed(rng)])

    def headers() -> Line:
        named = {
            "x-request-id": one(f"req_{number}", "", None, 5, "é x", "other"),
            "x-credits-used": one(credits, "", None, True, "two", -1, "3"),
            "x-model-used": one("gpt-4o", "", None, "true", "12"),
            "x-fallback-from": one("gpt-5", "", None),
            "x-fallback-depth": one("1", 1, "", 1.5),
            "server": "any",
        }
        return {name: value for name, value in named.items() if rng.random() < 0.9}

    def answer() -> Any:
        usage = {name: one(3, "3", None, 3.0, -3) for name in USAGE}
        stated = {"credits_used": one(credits, None, "4"), "usage": one(usage, None, "x")}
        whole = {name: value for name, value in stated.items() if rng.random() < 0.9}
        return one(whole, None, "text", [whole], {})

    line: Line = {"timestamp": one(AT, "2026-11-20T10:00:00", None)}
    if rng.random() < 0.5:
        line |= headers()
    if rng.random() < 0.6:
        line["headers"] = {spell(name): value for name, value in headers().items()}
    for place in ("chunk", "body"):
        if rng.random() < 0.3:
            line[place] = answer()
    if rng.random() < 0.3:
        stated = answer()
        line |= stated if isinstance(stated, dict) else {}
    return json.dumps(line)


def _mixed(rng: random.Random) -> Any:
    return lambda name: name.title() if rng.random() < 0.5 else name


def test_plain_lines_with_nested_fields_are_read_by_the_engine(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(landing: Landing, item: SpooledObject) -> None:
        raise AssertionError(f"{item.location} was read line by line")

    monkeypatch.setattr(Landing, "_land_careful", refuse)
    answer = {"choices": [], "usage": USAGE, "credits_used": 2}
    lower = {"x-request-id": "lower", "x-credits-used": "2", "server": "any"}
    lines = [
        flat("a", usage=USAGE),
        flat("b", chunk=answer, headers=None),
        {"timestamp": AT, "headers": lower, "body": answer | {"usage": None}},
    ]
    house.put("bot/a.jsonl", lines)

    house.night()

    found = {row["request_id"]: row["total_tokens"] for row in requests(house)}
    assert found == {"a": 150, "b": 150, "lower": None}


@pytest.mark.parametrize("seed", range(2))
def test_the_engine_and_the_careful_reader_agree_on_every_line(
    tmp_path: Path, some_models: Models, seed: int
) -> None:
    """Alone in its object a good line is the engine's; beside a broken one it is read by itself."""
    rng = random.Random(f"client_log/{seed}")
    lines = sorted({some_line(rng, number) for number in range(40)})
    alone = House(tmp_path / "alone", some_models, SETTINGS)
    for number, line in enumerate(lines):
        alone.put(f"bot/{number:03}.jsonl", line + "\n")
    together = House(tmp_path / "together", some_models, SETTINGS)
    together.put("bot/all.jsonl", ["{broken", *lines])

    alone.night()
    together.night()

    facts = (
        "select * exclude (source_name, source_object, source_line, arrived_at) from raw.requests "
        "order by all"
    )
    assert alone.rows(facts) == together.rows(facts)
    assert 15 < len(alone.rows(facts)) < len(lines)
    why = (
        "select reason, line_sha256 from ops.quarantine where reason <> 'malformed JSON' "
        "order by all"
    )
    assert alone.rows(why) == together.rows(why)
