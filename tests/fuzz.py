"""Objects full of odd lines, by a seed: what `test_fuzz.py` lands a hundred thousand lines of, and
`proof.py` a million.

A record begins well and then goes wrong as real ones do: bytes flipped, fields dropped, repeated
and of another type, numbers on the edge, escapes, nesting, NULs, bytes that are no UTF-8, lines too
long, cut off or glued together; BOMs and CRLFs. Some objects hold a good deal of it, some hardly
any, so that either path has its say.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.landings import Landings
from tests.slow_reader import FORMATS, LINE_LIMIT

TEXTS = [
    '"x"', '""', "null", "7", "true", '"7"', '{"a": 1}', '["a"]', '" x"', '"é"', '"\\u0000"',
    '"\\ud83d\\ude00"', '"\\ud800"', '"a,b"', '"say \\"so\\""', '"a\\\\"', '"None"', '"\\u00e9"',
    '"tab\\t"', '"line\\nbreak"', '"{1, 2, }"', '"NaN"', '"[[["', '"\\u0061pi"', '"=1+1"',
]  # fmt: skip
NUMBERS = [
    "0", "1", "2.5", '"2.5"', "-0", "-0.0", '"-0"', "2.5E1", '"2.5e-1"', "1e-9", "1e-10", "1E+3",
    "0.1234567890", "0.1234567891", '"0.12345678900"', "999999999.999999999", "1000000000",
    "123456789.123456789", "0.30000000000000001", "99999999.1000000001", "8947030.44518", "1e400",
    "12", '"12"', "12.0", '"12.0"', "1.2e1", "-1", '"-1"', "0.5", "9007199254740993",
    "9223372036854775807", "9223372036854775808", "2147483648", "null", '""', "true", "false",
    "NaN", '"NaN"', "Infinity", "-Infinity", '"inf"', '"+1"', '"1_000"', '" 1"', '"1 "', '".5"',
    '"1."', "01", '"007"', '"0x10"', '"１２"', '"1,5"', "[1]", "{}", "1.000000000000000000",
    "0.000000000000000000000000000001", "100000.123456789", "1234567.123456789",
    "5.000000000000001e-12", "4.9999999999999999e-12", "0e99999", "3.3333333333333335e-06",
]  # fmt: skip
# A count finer than a double is lost by the engine's reader before anything of ours sees it
# (tests/pipelines/test_reading.py); so is one near 2^63 that is no integer.
COUNTS = [number for number in NUMBERS if number not in {"999999999.999999999"}]
INSTANTS = ['"2026-11-20T10:00:00Z"', '"2026-11-20T10:00:00.123456Z"', '"2026-11-20t10:00:00z"',
    '"2026-11-20 10:00:00+05:30"', '"2026-11-20T10:00:00.1234567899Z"', '"0001-01-01T00:00:00Z"',
    '"2026-11-20T10:00:00-00:00"', '"9999-12-31T23:59:59Z"', '"2026-11-20T10:00:00"',
    '"2026-11-20"', '"2026-11-20T10:00:60Z"', '"2026-11-20T24:00:00Z"', '"2026-02-30T10:00:00Z"',
    '"2026-11-20T10:00Z"', '"2026-11-20T10:00:00,5Z"', '"2026-11-20T10:00:00 Z"', '"epoch"', "null",
    '""', "1763632800", "true", "{}", '"2031-01-01T00:00:00Z"', '"1969-12-31T23:59:59.999999Z"',
    '"2026-11-20T23:59:59.9999999-23:59"', '"2026-11-20T10:00:00+24:00"']  # fmt: skip
FLAGS = ["true", "false", "null", '""', '"true"', '"TRUE"', '"t"', "1", '"yes"']
SOURCES = ['"api"', '"playground"', "null", '""', '"API"', "7", '"api "']
STATUSES = ['"success"', '"failure"', "null", '""', '"Success"', "200", '"failed"']
DOCUMENTS = [
    "null", '""', "{}", '"{}"', '"no json"', '"[1]"', "7", '{"a": {"b": [1]}}',
    '{"attempted_fallbacks": 1, "original_model_group": "opus"}',
    '"{\\"attempted_fallbacks\\": 2, \\"original_model_group\\": \\"opus\\"}"',
    '{"attempted_fallbacks": 0, "original_model_group": "opus"}',
    '{"error_information": {"error_code": "429", "error_class": "RateLimitError"}}',
    '"{\\"error_information\\": {\\"error_code\\": \\"\\", \\"error_class\\": \\"Timeout\\"}}"',
    '{"error_information": {"error_code": 500, "error_class": ""}}',
    '{"error_information": null}', '{"error_information": "text"}',
]  # fmt: skip
POOLS = {
    "timestamp": INSTANTS, "endTime": INSTANTS, "gateway_in_at": INSTANTS,
    "provider_in_at": INSTANTS, "provider_out_at": INSTANTS, "gateway_out_at": INSTANTS,
    "credits_used": NUMBERS, "spend": NUMBERS, "prompt_tokens": COUNTS, "completion_tokens": COUNTS,
    "total_tokens": COUNTS, "latency_ms": COUNTS, "request_duration_ms": COUNTS,
    "fallback_depth": COUNTS, "stream": FLAGS, "source": SOURCES, "metadata": DOCUMENTS,
    "created_at": INSTANTS, "cost_total": NUMBERS, "tokens_prompt": COUNTS,
    "tokens_completion": COUNTS, "generation_time_ms": COUNTS, "cancelled": FLAGS,
    "streamed": FLAGS,
}  # fmt: skip
GOOD = {
    "canonical": {
        "timestamp": '"2026-11-20T10:00:00.250000Z"', "workspace_id": '"ws_1"',
        "api_key_id": '"key_1"', "source": '"api"', "model": '"gpt-5"', "status": "200",
        "prompt_tokens": "10", "completion_tokens": "5", "credits_used": "2.5", "stream": "true",
    },
    "usage_csv": {
        "timestamp": '"2026-11-20T10:00:00Z"', "model": '"gpt-5"', "api_key_id": '"key_1"',
        "prompt_tokens": "10", "completion_tokens": "5", "credits_used": "2.5", "latency_ms": "900",
        "fallback_depth": "0",
    },
    "litellm_spendlogs": {
        "endTime": '"2026-11-20T10:00:01.500000+00:00"', "api_key": '"key_1"', "team_id": '"ws_1"',
        "startTime": '"2026-11-20T10:00:00Z"', "model": '"openai/gpt-5"', "model_id": '"m-1"',
        "model_group": '"gpt-5"', "status": '"success"', "prompt_tokens": "10",
        "completion_tokens": "5", "total_tokens": "15", "spend": "0.00010185000000000001",
        "request_duration_ms": "1500", "metadata": '"{}"', "messages": '"{}"',
    },
    "openrouter_csv": {
        "created_at": '"2026-11-20T10:00:01.500000+00:00"', "cost_total": "0.00010185000000000001",
        "tokens_prompt": "10", "tokens_completion": "5", "model_permaslug": '"openai/gpt-5"',
        "cancelled": '"false"', "streamed": '"true"', "finish_reason_normalized": '"stop"',
        "generation_time_ms": "1500",
    },
}  # fmt: skip
UNKNOWN = [
    '{"a": {"a": 1, "a": 2}}', "[[]]", '"\\ud800"', '"\\u0000"', "1e999", "-0.0", "null", "[NaN]",
    "[1,]", "{,}", '"tab\t"', "'x'", "/* x */ 1", "+1", ".5",
    f'"{"x" * 200}"',
]  # fmt: skip
PUT_IN = [
    b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\r", b"\n", b"\\", b'"', b"\x0b", b"\x1f",
    b"\x7f", b"\xe2\x80\xa8", b"\\u0000", b"\\ud83d", b",", b" ", b"0", b"e",
]  # fmt: skip
WHOLE = [
    b"{", b"[]", b"null", b"7", b'"x"', b"{}", b"not json", b"  ", b"\t", b"{,}", b"\x00", b"\x0c",
    b"\xff\xfe", b'{"a": 1} {"b": 2}', b"}", b'\xef\xbb\xbf{"a": 1}', b"", b"\xc2\xa0", b"#",
]  # fmt: skip


class Fuzz:
    """Lines and objects of one format, as a seed has them."""

    def __init__(self, format_name: str, seed: int) -> None:
        self.format = format_name
        self.choice = random.Random(f"{format_name} {seed}")
        self.good = GOOD[format_name]
        self.identity = "generation_id" if format_name == "openrouter_csv" else "request_id"
        self.fields = list(FORMATS[format_name][0])
        self.count = 0

    def objects(self, lines: int) -> Iterator[tuple[str, bytes]]:
        """(name, content) of objects with about that many lines in all."""
        while lines > 0:
            size = min(lines, self.choice.choice((1, 3, 20, 150, 600, 1200)))
            lines -= size
            oddness = self.choice.choice((0.0, 0.002, 0.02, 0.3, 1.0))
            is_csv = self.format in ("usage_csv", "openrouter_csv") or self.choice.random() < 0.2
            write = self.csv if is_csv else self.json_lines
            suffix = ".csv" if is_csv else ".jsonl"
            yield f"{self.count:07}{suffix}", write(size, oddness)

    def pool(self, name: str) -> list[str]:
        if name == "status":
            return STATUSES if "spend" in self.fields else COUNTS
        return POOLS.get(name, TEXTS)

    def record(self, oddness: float) -> list[tuple[str, str]]:
        """Names and values, as JSON texts."""
        self.count += 1
        values = {self.identity: f'"req_{self.count}"'} | self.good
        if self.choice.random() < oddness:
            for _ in range(self.choice.randrange(1, 4)):
                name = self.choice.choice(self.fields)
                values[name] = self.choice.choice(self.pool(name))
        fields = list(values.items())
        if self.choice.random() < oddness * 0.1:
            fields.pop(self.choice.randrange(len(fields)))
        if self.choice.random() < oddness * 0.1:
            self.choice.shuffle(fields)
        return fields

    # ---- JSON lines -------------------------------------------------------------------------

    def json_lines(self, size: int, oddness: float) -> bytes:
        crlf = self.choice.random() < 0.1
        end = b"\r\n" if crlf else b"\n"
        lines = [self.json_line(oddness) for _ in range(size)]
        content = end.join(lines) + (end if self.choice.random() < 0.8 else b"")
        return (b"\xef\xbb\xbf" if self.choice.random() < 0.05 else b"") + content

    def json_line(self, oddness: float) -> bytes:
        choice = self.choice
        if choice.random() < oddness * 0.05:
            return choice.choice(WHOLE)
        fields = self.record(oddness)
        if choice.random() < oddness * 0.05:
            fields.append(choice.choice(fields))
        if choice.random() < oddness * 0.15:
            fields.insert(choice.randrange(len(fields)), ("unknown", choice.choice(UNKNOWN)))
        if choice.random() < oddness * 0.02:
            depth = choice.choice((1, 100, 510, 511, 512, 513, 900, 1500))
            fields.append(("deep", "[" * depth + "]" * depth))
        colon, comma = choice.choice(((": ", ", "), (":", ","), (" :\t", " , ")))
        named = [f"{self.name(name, oddness)}{colon}{value}" for name, value in fields]
        line = ("{" + comma.join(named) + "}").encode("utf-8", "surrogatepass")
        return self.spoiled(line) if choice.random() < oddness * 0.4 else line

    def name(self, name: str, oddness: float) -> str:
        if self.choice.random() < oddness * 0.02:
            place = self.choice.randrange(len(name))
            name = f"{name[:place]}\\u{ord(name[place]):04x}{name[place + 1 :]}"
        return f'"{name}"'

    def spoiled(self, line: bytes) -> bytes:
        """A line with something done to its bytes."""
        choice = self.choice
        place = choice.randrange(len(line)) if line else 0
        ways: list[Callable[[], bytes]] = [
            lambda: (
                line[:place] + bytes([line[place] ^ 1 << choice.randrange(8)]) + line[place + 1 :]
            ),
            lambda: line[:place] + bytes([choice.randrange(256)]) + line[place + 1 :],
            lambda: line[:place] + line[place + 1 :],
            lambda: line[:place],
            lambda: line[place:],
            lambda: line + line,
            lambda: line + choice.choice((b"x", b",", b"}", b" ", b"\t", b"\x00", b" // x")),
            lambda: choice.choice((b" ", b"\t", b"x", b"\xef\xbb\xbf", b"\x00", b"[")) + line,
            lambda: line[:place] + choice.choice(PUT_IN) + line[place:],
            lambda: line.replace(b'"', b"'", choice.randrange(1, 5)),
            lambda: line.replace(b",", b",,", 1),
            lambda: line.replace(b"}", b",}", 1),
            lambda: line.decode("utf-8", "replace").encode("utf-16"),
        ]  # fmt: skip
        spoiled = choice.choice(ways)() if line else line
        if choice.random() < 0.002:
            spoiled = spoiled[:-1] + b" " * (LINE_LIMIT - len(spoiled) + choice.randrange(-2, 3))
            spoiled += line[-1:]
        return spoiled

    # ---- CSV --------------------------------------------------------------------------------

    def csv(self, size: int, oddness: float) -> bytes:
        choice = self.choice
        names = [self.identity, *self.good, "note"]
        if choice.random() < 0.3:
            choice.shuffle(names)
        if choice.random() < oddness * 0.2:
            names[choice.randrange(len(names))] = choice.choice(("prompt", "", " model", "MODEL"))
        if choice.random() < oddness * 0.1:
            names.append(choice.choice(names))
        end = choice.choice((b"\n", b"\n", b"\r\n"))
        lines = [",".join(names).encode()]
        for _ in range(size):
            values = dict(self.record(oddness)) | {"note": choice.choice(TEXTS)}
            cells = [self.cell(values.get(name, '""'), oddness) for name in names]
            if choice.random() < oddness * 0.05:
                cells.append("more")
            if choice.random() < oddness * 0.05:
                cells.pop()
            line = ",".join(cells).encode("utf-8", "surrogatepass")
            lines.append(self.spoiled(line) if choice.random() < oddness * 0.2 else line)
            if choice.random() < oddness * 0.02:
                lines.append(b"")
        content = end.join(lines) + (end if choice.random() < 0.8 else b"")
        return (b"\xef\xbb\xbf" if choice.random() < 0.1 else b"") + content

    def cell(self, value: str, oddness: float) -> str:
        try:
            stated = json.loads(value)
        except ValueError:
            stated = value
        text = stated if isinstance(stated, str) else value
        is_special = bool(set(text) & set(',"\r\n'))
        if (is_special and self.choice.random() > oddness * 0.1) or self.choice.random() < 0.05:
            return '"' + text.replace('"', '""') + '"'
        return text


@dataclass
class Tally:
    """What came of fuzzed objects."""

    seeds: list[int]
    lines: int = 0
    accepted: int = 0
    aside: int = 0


def run(folder: Path, format_name: str, seeds: range, lines: int) -> Tally:
    """Lands about that many lines from each seed. Asserts that the house and the second reader
    agree on every record; the message has the seed and the bytes.
    """
    landings = Landings(folder, format_name)
    tally = Tally(list(seeds))
    for seed in seeds:
        objects = dict(Fuzz(format_name, seed).objects(lines))
        found = landings.land(objects, ahead=seed % 4 == 0)
        firsts: dict[bytes, str] = {}
        for name, content in objects.items():
            if firsts.setdefault(content, name) != name:
                continue
            verdicts, house = landings.expected(name, content), found[name]
            tally.lines += content.count(b"\n") + (not content.endswith(b"\n"))
            tally.accepted += len(verdicts.rows)
            tally.aside += len(verdicts.aside)
            if house == verdicts:
                continue
            for line in sorted({*verdicts.rows, *verdicts.aside, *house.rows, *house.aside}):
                here = house.rows.get(line, house.aside.get(line))
                there = verdicts.rows.get(line, verdicts.aside.get(line))
                stated = content.split(b"\n")[line - 1][:500]
                assert here == there, (
                    f"{format_name}, seed {seed}, {name}, line {line}: the house has {here}, "
                    f"the second reader {there}: {stated!r}"
                )
    return tally
