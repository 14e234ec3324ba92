"""What the engine reads and nobody wrote: a packed object, unpacked once more as it is asked for,
and a JSON object without the lines in doubt.

DuckDB is given files of a file system of ours. When they are worth it, why lines are in doubt, and
what becomes of those, does not belong here.
"""

import io
import itertools
import re
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import Any, cast

import duckdb
import fsspec

from pipelines.reading import UNREADABLE, Line, plain_chunks

ASIDE = "~"  # short: it is read with every line
# Parts that stay in the processor's own memory pass several times as fast.
PART = 2**18
# The engine asks for parts of 16 MiB in their order, but a thread may come late for its own.
KEPT = 4 * 2**24


class Unwritten(ABC):
    """Bytes that exist only while they are read.

    There are promised to be `size` of them long before they are known: what lacks in the end is
    made up of line ends, which are no records.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = Lock()
        self._restart()

    @abstractmethod
    def _all(self) -> Iterator[bytes]:
        """The bytes from the beginning, part by part."""

    def close(self) -> None:
        """Nothing is read any more."""
        self._parts.close()

    def _restart(self) -> None:
        self._parts = cast(Generator[bytes], self._all())
        self._ready: deque[bytes] = deque()
        self._begin = self._end = 0  # of what is ready, in what is read

    def read(self, position: int, size: int) -> bytes:
        """The bytes from `position`; fewer than `size` only at the end."""
        with self._lock:
            if position < self._begin:
                self._parts.close()
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


class Unpacked(Unwritten):
    """The `size` plain bytes of a packed object.

    Its checks (CRC, length) held when it was read through. Where it can't be read now, it was
    changed since, which its mark tells: no record stands where its bytes should.
    """

    def __init__(self, path: Path, packing: str, size: int) -> None:
        self.path = path
        self.packing = packing
        super().__init__(size)

    def _all(self) -> Iterator[bytes]:
        with suppress(FileNotFoundError, *UNREADABLE):
            yield from plain_chunks(self.path, self.packing)


class Sifted(Unwritten):
    """A JSON object without the lines `aside` (numbers from 1, ascending, of `line_count`).

    Each of its other lines has a field `ASIDE` more: how many lines were left out before it, so
    that its number can be told from its place.
    """

    def __init__(self, path: Path, line_count: int, aside: Sequence[int]) -> None:
        self.file = path.open("rb")
        self.aside = array("q", aside)
        self.line_count = line_count - len(aside)
        length = self.file.seek(0, io.SEEK_END)
        super().__init__(length + line_count * (len(_opening(len(aside))) - 1) + 1)

    def close(self) -> None:
        super().close()
        self.file.close()

    def lines_aside(self) -> Iterator[Line]:
        """The lines that were left out, once the others have been read."""
        for number, offset, length in zip(self.aside, self.offsets, self.lengths, strict=True):
            self.file.seek(offset)
            yield number, offset, self.file.read(length)

    def _all(self) -> Iterator[bytes]:
        # where the lines aside stand: byte offset and length of each
        self.offsets, self.lengths = array("q"), array("q")
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

    def __init__(self, file: Unwritten) -> None:
        self.file = file
        self.position = 0

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = self.file.size - self.position
        found = self.file.read(self.position, size)
        self.position += len(found)
        return found

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.file.size}
        self.position = base[whence] + position
        return self.position

    def tell(self) -> int:
        return self.position


class _Files(fsspec.AbstractFileSystem):  # type: ignore[misc]
    protocol = "unwritten"
    cachable = False

    def __init__(self, files: Sequence[Unwritten]) -> None:
        super().__init__()
        self.files = files

    def _find(self, path: str) -> Unwritten:
        return self.files[int(path.rpartition("/")[2])]

    def _open(self, path: str, *_: Any, **__: Any) -> _Reader:
        return _Reader(self._find(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": self._find(path).size, "type": "file"}

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path]


@contextmanager
def readable(
    connection: duckdb.DuckDBPyConnection, files: Sequence[Unwritten]
) -> Iterator[Sequence[str]]:
    """Lets the engine read them: the names that it finds them by."""
    connection.register_filesystem(_Files(files))
    try:
        yield [f"unwritten://{index}" for index in range(len(files))]
    finally:
        connection.unregister_filesystem("unwritten")
        for file in files:
            file.close()
