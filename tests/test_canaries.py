"""Canaries: unique words in everything that nobody asked to keep, and after real nights none of
them on the disk (house, invariant 8).

They sit in unknown fields and nested ones, in names of fields and columns, in documents of which
only a word is read, in lines that are set aside, cut off, too long, no UTF-8, and in objects that
are refused whole; for every format there is, and for the small files too. Then every byte is
searched: below the root, in Dagster's storage, in the spool, in what the command said; unpacked,
and column by column.
"""

import gzip
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from assets.requests import formats
from pipelines.calendar import DAY, utc_now
from pipelines.reading import (
    COMPLETED,
    CREDITS,
    DOCUMENT,
    EPOCH,
    FLOAT_MONEY,
    IDENTIFIER,
    TEXT,
    Kind,
    RequestFormat,
)
from pipelines.settings import Limits
from pipelines.simulator.usage_server import LocalUsage, Row, serve, traffic
from pipelines.store import quote
from tests.houses import (
    House,
    Line,
    command,
    csv,
    environment,
    invoice,
    packed,
    payment,
    published,
)

CANARY = "kanarie"
KEPT = "keeper"  # what is searched for must be found where it is kept
SETTINGS = """
[warehouse]
root = "data"

[exports]
location = "{exports}"
nightly = ["usage_by_model", "usage_by_key", "usage_by_member", "usage", "requests"]
"""
SOURCE = """
[[requests]]
name = "{0}"
format = "{0}"
location = "landing/{0}"
"""

# A value of each kind of field that a format may need.
NEEDED: Mapping[Kind, Any] = {
    IDENTIFIER: KEPT,
    EPOCH: 1763632800.25,
    COMPLETED: "2026-11-20T10:00:00Z",
    CREDITS: "2.5",
    FLOAT_MONEY: "0.025",
}
# What gateways write beside what is kept: prompts, answers, addresses, agents, errors.
PRIVATE = (
    "messages", "response", "metadata", "proxy_server_request", "requester_ip_address",
    "user_agent", "request_tags", "error_str", "error_message", "prompt", "completion", "input",
    "output", "choices", "content", "tools", "system", "user", "end_user", "ip", "headers",
    "cookies", "authorization", "session_id", "vector_store_request_metadata", "cache_key",
    "hidden_params", "model_parameters", "guardrail_information", "error_information",
)  # fmt: skip


# Formats that need what no field of theirs needs by itself.
NEEDED_TOO = {"client_log": {"x-request-id": KEPT, "x-credits-used": "2.5"}}


def read_formats() -> dict[str, RequestFormat]:
    """The formats that are read from objects; what is fetched has tests of its own."""
    return {name: known for name, known in formats().items() if not known.fetch}


def needed_of(known: RequestFormat) -> Line:
    """What a record can't lack."""
    needed = {name: NEEDED[kind] for name, kind in known.fields.items() if kind.needed}
    return needed | NEEDED_TOO.get(known.name, {})


def identity_of(known: RequestFormat) -> str:
    """The field that holds a record's id."""
    identities = (name for name, kind in known.fields.items() if kind is IDENTIFIER)
    return next(identities, "x-request-id")


class Cage:
    """Canaries of one format, each once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"{CANARY}_{self.name}_{self.count}_{os.urandom(4).hex()}"

    def document(self) -> dict[str, Any]:
        """As LiteLLM's metadata: what is read of it has nothing in it worth keeping."""
        return {
            "user_api_key_alias": self(),
            self(): [self(), {self(): self()}],
            "attempted_fallbacks": self(),
            "original_model_group": self(),
            "error_information": {
                "error_code": self(),
                "error_message": self(),
                "traceback": self(),
                "llm_provider": self(),
            },
            "headers": {"user-agent": self(), "x-forwarded-for": self()},
        }


def is_read(known: RequestFormat, name: str) -> bool:
    """Whether a field of a format goes into a column."""
    return any(re.search(rf"\b{name}\b", sql) for sql in known.request.values())


def good_lines(known: RequestFormat, cage: Cage) -> Iterator[Line]:
    """Records that are accepted, with canaries in all that is dropped."""
    needed, identity = needed_of(known), identity_of(known)
    nested = [name for name, kind in known.fields.items() if kind.within]
    private = [name for name in PRIVATE if name not in known.fields]
    unread = [n for n, kind in known.fields.items() if kind is TEXT and not is_read(known, n)]
    documents = [name for name, kind in known.fields.items() if kind is DOCUMENT]
    for number in range(6):
        line: Line = dict(needed) | {identity: f"{KEPT}_{number}"}
        for name in [*private, *unread]:
            line[name] = cage()
        if number % 2:
            line |= {
                name: [{"role": "user", "content": cage(), "parts": [{cage(): cage()}]}, cage()]
                for name in private
            }
            line[cage()] = {cage(): cage()}
        if "member_id" in known.fields:
            line["member_id"] = cage()  # of an API call: it belongs to its key
        for name in nested:
            line[name] = cage.document()
        for name in documents:
            document = cage.document()
            line[name] = json.dumps(document) if number % 3 else document
            if number == 4:
                line[name] = cage()  # no document at all
        if number == 2:
            line |= {"status": "failure"} if "spend" in known.fields else {}
        yield line


def bad_lines(known: RequestFormat, cage: Cage) -> Iterator[bytes]:
    """Lines that are set aside."""
    good = json.dumps(needed_of(known))
    tail = f', "messages": "{cage()}"}}'
    for name, kind in known.fields.items():
        if kind is DOCUMENT:
            continue
        wrong: list[Any] = [[cage()], f"{cage()}\x00"]
        if not kind.within:
            wrong.append({cage(): cage()})
        if kind not in (TEXT, IDENTIFIER):
            wrong += [cage(), f"1 {cage()}"]
        for value in wrong:
            yield json.dumps(json.loads(good) | {name: value, "prompt": cage()}).encode()
        yield (good[:-1] + f', "{name}": "{cage()}", "{name}": "{cage()}"}}').encode()
    yield (good[:-1] + tail)[:-3].encode()  # cut off
    yield (good[:-1] + tail + cage()).encode()
    yield f'{cage()} {{"a": "{cage()}"}}'.encode()
    yield f'["{cage()}"]'.encode()
    yield (good[:-1] + f', "x": {cage()}}}').encode()
    yield (good[:-1] + f', "x": NaN, "y": "{cage()}"}}').encode()
    yield (good[:-1] + f', "x": "{cage()}\udcff"}}').encode("utf-8", "surrogateescape")
    yield (good[:-1] + tail).replace(",", ",\r").encode()
    yield (good[:-1] + f', "x": {"[" * 600}"{cage()}"{"]" * 600}}}').encode()
    yield (good[:-1] + f', "x": "{cage() * (Limits().line_bytes // 20)}"}}').encode()
    yield json.dumps(cage()).encode("utf-16")


def csv_files(known: RequestFormat, cage: Cage) -> Iterator[str]:
    """Canaries in names of columns, in their cells, in rows and headers that can't be read."""
    needed = needed_of(known)
    dropped = {cage(): cage() for _ in range(3)} | {
        name: cage() for name in PRIVATE if name not in known.fields
    }
    quoted = {cage(): f'"{cage()}\n{cage()}"'}
    lines = csv([needed | dropped | quoted, needed | dropped | {"prompt": cage()}])
    yield lines + f"{cage()},{cage()}\n" + f'"{cage()},never closed\n{cage()}\n'
    yield csv([{cage(): cage()}, {cage(): cage()}])  # no column that is known
    yield f'"{cage()}, never closed\n' + lines
    yield csv([needed | {name: cage() for name in needed}])


@dataclass
class Searched:
    """What nights left: every text there is, by where it is."""

    house: House
    cages: Mapping[str, Cage]
    texts: Mapping[str, bytes]
    said: list[str]

    def where(self, word: str) -> list[str]:
        """The places of a word, plain or in UTF-16."""
        forms = (word.encode(), word.encode("utf-16-le"), word.encode("utf-16-be"))
        return [place for place, text in self.texts.items() if any(form in text for form in forms)]


def search(house: House, *folders: Path) -> dict[str, bytes]:
    """Every byte below the folders but what was delivered; what is packed, also as texts."""
    texts: dict[str, bytes] = {}
    connection = duckdb.connect()
    for path in (path for folder in folders for path in sorted(folder.rglob("*"))):
        place = str(path)
        texts[f"{place} (its name)"] = os.fsencode(place)
        if not path.is_file() or house.folder / "landing" in path.parents:
            continue
        texts[place] = path.read_bytes()
        if path.suffix == ".parquet":
            rows = connection.execute(f"from read_parquet({quote(place)})").fetchall()
            texts[f"{place} (rows)"] = repr(rows).encode()
        if path.suffix == ".gz":
            texts[f"{place} (unpacked)"] = gzip.decompress(path.read_bytes())
    connection.close()
    if (house.root / "warehouse.duckdb").exists():
        with published(house.root) as tables:
            names = tables.execute(
                "select table_schema || '.' || table_name from information_schema.tables "
                "where table_catalog = 'warehouse'"
            ).fetchall()
            for (name,) in names:
                rows = tables.execute(f"from warehouse.{name}").fetchall()
                texts[f"warehouse.duckdb, {name}"] = repr(rows).encode()
    return texts


@pytest.fixture(scope="module")
def searched(once: Callable[..., Any]) -> Searched:
    """Two nights over everything, run by whichever worker came first."""
    folder, cages, texts, said = once("aviary", two_nights)
    return Searched(House(folder / "house"), cages, texts, said)


def two_nights(folder: Path) -> tuple[Path, Mapping[str, Cage], dict[str, bytes], list[str]]:
    """One that fails after landing, and, with more, one that mends it."""
    spool = folder / "tmp"
    spool.mkdir()
    settings = SETTINGS.format(exports="out")
    settings += "".join(SOURCE.format(name) for name in sorted(read_formats()))
    house = House(folder / "house", settings=settings, environment={"TMPDIR": str(spool)})
    cages = {name: Cage(name) for name in sorted(read_formats())}
    for name, cage in cages.items():
        known = read_formats()[name]
        put_canaries(house, known, cage)
    other = Cage("other")
    put_small_files(house, other)

    blocked = house.folder / "blocked"
    blocked.write_text("a file where a folder should be")
    house.environment["METERHOUSE_EXPORTS_LOCATION"] = str(blocked / "out")
    nights = [house.run("--debug", "nightly", "--as-of", "2026-11-21")]
    del house.environment["METERHOUSE_EXPORTS_LOCATION"]
    failed = search(house, house.folder, spool)
    for name, cage in cages.items():
        more = list(bad_lines(read_formats()[name], cage))
        house.put(f"{name}/later.jsonl", b"\n".join(more))
    nights.append(house.run("--debug", "nightly", "--as-of", "2026-11-21"))
    for words in (("status",), ("doctor",), ("request", f"{KEPT}_1"), ("usage",)):
        nights.append(house.ask(*words))

    said = [done.stdout + done.stderr for done in nights]
    assert [done.returncode for done in nights][:2] == [1, 0], said
    texts = {f"after the failed night: {place}": text for place, text in failed.items()}
    texts |= search(house, house.folder, spool)
    texts |= {f"said, {n}": text.encode() for n, text in enumerate(said)}
    return folder, cages | {"other": other}, texts, said


def put_canaries(house: House, known: RequestFormat, cage: Cage) -> None:
    good = [json.dumps(line).encode() for line in good_lines(known, cage)]
    bad = list(bad_lines(known, cage))
    house.put(f"{known.name}/clean.jsonl", b"\n".join(good[:3]) + b"\n")
    house.put(f"{known.name}/mixed.jsonl", b"\n".join([*good[3:], *bad]))
    for number, line in enumerate(bad):
        house.put(f"{known.name}/alone/{number}.jsonl", line)
    for number, text in enumerate(csv_files(known, cage)):
        house.put(f"{known.name}/{number}.csv", text)
    whole = packed(".gz", f'{{"prompt": "{cage()}"}}\n' * 500)
    house.put(f"{known.name}/cut.jsonl.gz", whole[:-5])
    house.put(f"{known.name}/garbage.jsonl.gz", whole + cage().encode())
    house.put(f"{known.name}/plain.jsonl.gz", cage().encode())
    house.put(f"{known.name}/packed.jsonl.zst", packed(".zst", f'{{"prompt": "{cage()}"}}\n'))
    house.put(f"{known.name}/notes.txt", cage())


def put_small_files(house: House, cage: Cage) -> None:
    house.put(
        "directory/keys.csv",
        csv([{"api_key_id": "key_1", "workspace_id": "ws_1", "name": KEPT, "secret": cage()}]),
    )
    house.put(
        "directory/members.json",
        json.dumps([
            {"member_id": "mem_1", "workspace_id": "ws_1", "name": "Ada", "email": cage()},
            {"member_id": [cage()], "name": "Bob"},
        ]),
    )  # fmt: skip
    house.put(
        "directory/workspaces.jsonl", f'{{"workspace_id": "ws_1", "note": "{cage()}"}}\n{{bad'
    )
    house.put(
        "invoices/a.csv",
        csv([
            invoice("inv_1", note=cage()),
            invoice("inv_2", note=cage()) | {"total_minor": cage()},
        ]),
    )  # fmt: skip
    private = ("Customer Email", "Card Name", "Card Address Line1", "Card Last4", "Seller Message")
    house.put(
        "stripe/payments.csv",
        csv([
            payment("ch_1", "inv_1", **{name: cage() for name in private}),
            payment("ch_2", "inv_2", amount=cage(), **{name: cage() for name in private}),
        ]),
    )  # fmt: skip


def test_what_is_kept_is_found_where_it_is_kept(searched: Searched) -> None:
    """So that a search that finds nothing means something."""
    places = searched.where(f"{KEPT}_1")

    assert any("raw/requests" in place and "(rows)" in place for place in places)
    assert any("marts.requests" in place for place in places)
    assert any("/out/" in place for place in places)
    assert any(place.startswith("said") for place in places)
    assert any("dagster_home" in place for place in searched.texts)


@pytest.mark.parametrize("name", [*sorted(read_formats()), "other"])
def test_no_canary_is_left_anywhere(searched: Searched, name: str) -> None:
    assert searched.cages[name].count > (100 if name != "other" else 10)

    assert searched.where(f"{CANARY}_{name}") == []


@pytest.mark.parametrize("name", sorted(read_formats()))
def test_the_good_records_are_kept_and_the_bad_ones_are_remembered(
    searched: Searched, name: str
) -> None:
    """So that no canary is gone because its record was."""
    house = searched.house
    kept = house.value(f"select count(*) from marts.requests where gateway = '{name}'")
    aside = house.value(f"select count(*) from ops.quarantine where source = '{name}'")

    assert kept >= 6
    assert aside >= 2 * len(list(bad_lines(read_formats()[name], Cage("counted"))))


def test_nothing_is_left_in_the_spool(searched: Searched) -> None:
    left = [path for path in (searched.house.folder.parent / "tmp").rglob("*") if path.is_file()]

    assert left == []


def test_what_the_gateway_answers_beside_what_is_kept_is_nowhere(tmp_path: Path) -> None:
    """`GET /v1/usage`: good rows, and one that is set aside, each with more than was asked for."""
    spool = tmp_path / "tmp"
    spool.mkdir()
    cage = Cage("usage_api")

    yesterday = datetime.combine(utc_now().date() - DAY, datetime.min.time())
    rows = traffic(yesterday, 9, timedelta(minutes=1))

    def answer(page: list[Row]) -> list[Row]:
        odd = rows[-1]["request_id"]
        return [
            row
            | {name: cage() for name in PRIVATE}
            | {cage(): cage.document()}
            | ({"latency_ms": cage()} if row["request_id"] == odd else {})
            for row in page
        ]

    with serve(LocalUsage("token", rows, answer=answer)) as local:
        settings = SETTINGS.format(exports="out") + SOURCE.format("usage_api")
        settings = settings.replace("landing/usage_api", local.url)
        variables = {"TMPDIR": str(spool), "METERHOUSE_REQUESTS_USAGE_API_TOKEN": "token"}
        house = House(tmp_path / "house", settings=settings, environment=variables)
        said = [house.run("--debug", "nightly"), house.ask("doctor"), house.ask("status")]

    assert said[0].returncode == 0, said[0].stderr
    assert cage.count > 200
    assert house.value("select count(*) from marts.requests") == 8
    assert house.value("select count(*) from ops.quarantine") == 1
    texts = search(house, house.folder, spool)
    texts |= {f"said, {n}": (one.stdout + one.stderr).encode() for n, one in enumerate(said)}
    assert [place for place, text in texts.items() if CANARY.encode() in text] == []


def test_a_killed_night_leaves_them_in_its_spool_alone_until_the_next(tmp_path: Path) -> None:
    spool = tmp_path / "tmp"
    spool.mkdir()
    settings = SETTINGS.format(exports="out") + SOURCE.format("canonical")
    house = House(tmp_path / "house", settings=settings, environment={"TMPDIR": str(spool)})
    cage = Cage("killed")
    needed = {
        name: NEEDED[kind] for name, kind in formats()["canonical"].fields.items() if kind.needed
    }
    lines = [json.dumps(needed | {"request_id": f"r_{n}", "prompt": cage()}) for n in range(20_000)]
    house.put("canonical/a.jsonl.gz", "\n".join([*lines, "{bad"]))
    night = subprocess.Popen(
        command(house, "nightly"),
        env=environment(house),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with night:
        while night.poll() is None:
            if any(path.is_file() and path.stat().st_size for path in spool.glob("meterhouse-*/*")):
                night.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
    assert night.returncode == -signal.SIGKILL

    def where(texts: Mapping[str, bytes]) -> list[str]:
        return [place for place, text in texts.items() if CANARY.encode() in text]

    assert where(search(house, spool)) != []
    assert where(search(house, house.folder)) == []
    house.run("nightly", check=True)  # its spool is the same folder
    assert house.value("select count(*) from marts.requests") == 20_000
    assert where(search(house, house.folder, spool)) == []
    assert [path for path in spool.rglob("*") if path.is_file()] == []
