"""A JSON object without the lines in doubt, as the engine reads it: nothing is written for it.

DuckDB is given a file of a file system of ours. What it reads there are the object's other lines,
each with a field `ASIDE` more: how many lines were left out before it, so that its number can be
told from its place. Why lines are in doubt, and what becomes of them, does not belong here.
"""

import io
import itertools
import re
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import Any

import duckdb
import fsspec

from pipelines.reading import Line

ASIDE = "~"  # short: it is read with every line
# Parts that stay in the processor's own memory pass several times as fast.
PART = 2**18
# The engine asks for parts of 16 MiB in their order, but a thread may come late for its own.
KEPT = 4 * 2**24


class Sifted:
    """One object without the lines `aside` (numbers from 1, ascending, of `line_count`).

    What it reads as is promised to be `size` bytes long before it is known: what lacks in the end
    is made up of line ends, which are no records.
    """

    def __init__(self, path: Path, line_count: int, aside: Sequence[int]) -> None:
        self.file = path.open("rb")
        self.aside = array("q", aside)
        self.line_count = line_count - len(aside)
        length = self.file.seek(0, io.SEEK_END)
        self.size = length + line_count * (len(_opening(len(aside))) - 1) + 1
        self._lock = Lock()
        self._restart()

    def _restart(self) -> None:
        # where the lines aside stand: byte offset and length of each
        self.offsets, self.lengths = array("q"), array("q")
        self._parts = self._sift()
        self._ready: deque[bytes] = deque()
        self._begin = self._end = 0  # of what is ready, in what is read

    def read(self, position: int, size: int) -> bytes:
        """The bytes from `position`; fewer than `size` only at the end."""
        with self._lock:
            if position < self._begin:
                self._restart()
            end = min(position + size, self.size)
            while self._end < end:
                part = next(self._parts, None)
                if part is None:
                    part = b"\n" * (end - self._end)
                self._ready.append(part)
                self._end += len(part)
            while self._begin + len(self._ready[0]) < position - KEPT:
                self._begin += len(self._ready.popleft())
            wanted, begin = [], self._begin
            for part in self._ready:
                if begin >= end:
                    break
                if begin + len(part) > position:
                    wanted.append(part[max(0, position - begin) : end - begin])
                begin += len(part)
            return b"".join(wanted)

    def lines_aside(self) -> Iterator[Line]:
        """The lines that were left out, once the others have been read."""
        for number, offset, length in zip(self.aside, self.offsets, self.lengths, strict=True):
            self.file.seek(offset)
            yield number, offset, self.file.read(length)

    def _sift(self) -> Iterator[bytes]:
        number, offset, next_aside = 1, 0, 0  # of the first line of a part
        self.file.seek(0)
        while part := self.file.read(PART) + self.file.readline():
            lines = list(io.BytesIO(part))
            first = 0  # of the lines between two aside
            while next_aside < len(self.aside) and self.aside[next_aside] < number + len(lines):
                at = self.aside[next_aside] - number
                yield _counted(lines[first:at], next_aside)
                self.offsets.append(offset + sum(map(len, itertools.islice(lines, at))))
                self.lengths.append(len(lines[at]))
                first = at + 1
                next_aside += 1
            yield _counted(lines[first:], next_aside)
            number += len(lines)
            offset += len(part)
        yield b"\n"  # the last line may have no end


def _opening(count: int) -> bytes:
    return b'{"%s":%d,' % (ASIDE.encode(), count)


def _counted(lines: Sequence[bytes], count: int) -> bytes:
    """Lines, one after the other, with how many were left out before them."""
    opening = _opening(count)
    if set(map(itemgetter(0), lines)) == {ord("{")}:
        return opening + opening.join(map(itemgetter(slice(1, None)), lines))
    # Space before a brace, or nothing at all. What is no object keeps its text: the engine will
    # refuse it.
    return b"".join(re.sub(rb"^[ \t\r]*\{", opening, line) for line in lines)


class _Reader(io.RawIOBase):
    """A place in one of them."""

    def __init__(self, sifted: Sifted) -> None:
        self.sifted = sifted
        self.position = 0

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = self.sifted.size - self.position
        found = self.sifted.read(self.position, size)
        self.position += len(found)
        return found

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.sifted.size}
        self.position = base[whence] + position
        return self.position

    def tell(self) -> int:
        return self.position


class _Files(fsspec.AbstractFileSystem):  # type: ignore[misc]
    protocol = "sifted"
    cachable = False

    def __init__(self, files: Sequence[Sifted]) -> None:
        super().__init__()
        self.files = files

    def _find(self, path: str) -> Sifted:
        return self.files[int(path.rpartition("/")[2])]

    def _open(self, path: str, *_: Any, **__: Any) -> _Reader:
        return _Reader(self._find(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": self._find(path).size, "type": "file"}

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path]


@contextmanager
def readable(
    connection: duckdb.DuckDBPyConnection, files: Sequence[Sifted]
) -> Iterator[Sequence[str]]:
    """Lets the engine read them: the names that it finds them by."""
    connection.register_filesystem(_Files(files))
    try:
        yield [f"sifted://{index}" for index in range(len(files))]
    finally:
        connection.unregister_filesystem("sifted")
        for sifted in files:
            sifted.file.close()
