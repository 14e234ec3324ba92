"""What the engine reads and nobody wrote: without the lines in doubt, where every other line keeps
its number; and unpacked as it is asked for.
"""

import json
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import unwritten
from pipelines.unwritten import ASIDE, Sifted, Unpacked, readable
from tests.houses import packed

LINES = st.lists(
    st.tuples(st.sampled_from(["", " ", "\t"]), st.booleans(), st.text(max_size=40)), max_size=60
)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(LINES, st.booleans(), st.sampled_from([7, 64, 2**18]))
def test_what_is_left_is_read_with_its_numbers_and_what_is_aside_is_given(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    drawn: list[tuple[str, bool, str]],
    ends: bool,
    part: int,
) -> None:
    monkeypatch.setattr(unwritten, "PART", part)
    lines = [
        f"{space}{json.dumps({'n': number, 'text': text})}" if is_good else f"no {number}"
        for number, (space, is_good, text) in enumerate(drawn, start=1)
    ]
    aside = [number for number, (_, is_good, _) in enumerate(drawn, start=1) if not is_good]
    path = tmp_path / "a.jsonl"
    path.write_bytes(("\n".join(lines) + ("\n" if ends and lines else "")).encode())

    sifted = Sifted(path, len(lines), aside)
    with duckdb.connect() as connection, readable(connection, [sifted]) as [name]:
        rows = connection.execute(
            f"""select n, "{ASIDE}" from read_json('{name}', format = 'newline_delimited',
                columns = {{'n': 'bigint', '{ASIDE}': 'bigint'}})"""
        ).fetchall()
        given_aside = list(sifted.lines_aside())

    assert [row + before + 1 for row, (_, before) in enumerate(rows)] == [n for n, _ in rows]
    assert [n for n, _ in rows] == [n for n in range(1, len(lines) + 1) if n not in aside]
    assert [(number, line.strip()) for number, _, line in given_aside] == [
        (number, f"no {number}".encode()) for number in aside
    ]
    whole = path.read_bytes()
    assert all(whole[offset:].startswith(line) for _, offset, line in given_aside)


def test_its_parts_may_be_asked_for_again_and_a_little_out_of_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unwritten, "PART", 50)
    monkeypatch.setattr(unwritten, "KEPT", 200)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(b'{"n":%d}\n' % number for number in range(200)))
    sifted = Sifted(path, 200, [1, 100])
    whole = sifted.read(0, sifted.size)

    parts = [(position, 64) for position in range(0, sifted.size, 64)]
    swapped = [part for pair in zip(parts[1::2], parts[::2], strict=False) for part in pair]
    found = {position: sifted.read(position, size) for position, size in [*swapped, parts[-1]]}

    assert b"".join(found[position] for position in sorted(found)) == whole
    assert len(whole) == sifted.size
    assert sifted.read(sifted.size, 10) == b""
    sifted.close()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_object_is_read_as_its_plain_bytes(tmp_path: Path, suffix: str) -> None:
    lines = [json.dumps({"n": number, "text": "x" * (number % 999)}) for number in range(30_000)]
    text = "\n".join(lines) + "\n"
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(packed(suffix, text))

    unpacked = Unpacked(path, suffix, len(text))
    with duckdb.connect() as connection, readable(connection, [unpacked]) as [name]:
        rows = connection.execute(
            f"""select n, strlen(text) from read_json('{name}', format = 'newline_delimited',
                columns = {{'n': 'bigint', 'text': 'varchar'}})"""
        ).fetchall()

    assert rows == [(number, number % 999) for number in range(30_000)]


@pytest.mark.parametrize("left", [0, 2, 40])
def test_one_that_was_cut_since_it_was_read_through_has_fewer_lines(
    tmp_path: Path, left: int
) -> None:
    text = '{"n":1}\n' * 1000
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed(".gz", text))
    unpacked = Unpacked(path, ".gz", len(text))
    path.write_bytes(path.read_bytes()[:left])

    read = unpacked.read(0, unpacked.size)

    assert len(read) == len(text)
    assert read.rstrip(b"\n") == b""
    unpacked.close()
