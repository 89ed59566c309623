"""Reading a history: all its parts as they are at one moment, plain or compressed, by lines and within bounds."""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scheduler.store.segments import Segment, listed

CURRENT = ""
LINE_LIMIT = 256 * 1024  # of a longer line nothing is kept in memory; ours have at most 64 KB
Bytes = io.FileIO | gzip.GzipFile
_BLOCK = 1 << 17


@dataclass(frozen=True)
class Part:
    """A part of a history as it was at one moment. `name` is CURRENT for the one that is written to."""

    name: str
    path: str
    info: os.stat_result
    held: io.FileIO | None = None

    @contextmanager
    def opened(self) -> Iterator[Bytes | None]:
        """Its plain bytes, also where it was compressed since; None where it was removed."""
        if self.held is not None:
            yield self.held
            return
        file = _open_full(self.path)
        try:
            yield file
        finally:
            if file is not None:
                file.close()


@contextmanager
def snapshot(path: str) -> Iterator[list[Part]]:
    """The parts of a history as it is at this moment, oldest first and the one that is written to last.

    No line is missing or comes twice because a part is renamed, compressed or removed meanwhile.
    """
    current = _open(path)  # before the list is made: what is renamed after that is on it, as the same file
    try:
        info = None if current is None else os.fstat(current.fileno())
        parts = [Part(segment.name, segment.path, found) for segment, found in _present(path)]
        parts = [part for part in parts if info is None or not os.path.samestat(part.info, info)]
        yield parts if info is None else [*parts, Part(CURRENT, path, info, current)]
    finally:
        if current is not None:
            current.close()


def _present(path: str) -> Iterator[tuple[Segment, os.stat_result]]:
    for segment in listed(path):
        for place in (segment.path, segment.path + ".gz"):
            try:
                yield segment._replace(path=place), os.stat(place)
                break
            except FileNotFoundError:
                continue


def read(path: str, *, newest_first: bool = False) -> Iterator[tuple[str, Bytes]]:
    """Each part of a history, oldest first: (path, its plain bytes), closed when the next is asked for."""
    with snapshot(path) as parts:
        for part in reversed(parts) if newest_first else parts:
            with part.opened() as file:
                if file is not None:
                    yield part.path, file


def _open_full(path: str) -> Bytes | None:
    plain = path.removesuffix(".gz")
    file = _open(plain)
    if file is None:
        packed = _open(plain + ".gz")
        return None if packed is None else Unpacked(packed)
    return file


class Unpacked(gzip.GzipFile):
    """A compressed file that closes what is below it."""

    def __init__(self, packed: io.FileIO) -> None:
        super().__init__(fileobj=packed)
        self._packed = packed

    def trailer(self) -> bytes:
        """What the file says of its plain bytes: their CRC-32 and their number, as eight bytes."""
        self._packed.seek(max(self._packed.seek(0, os.SEEK_END) - 8, 0))
        return self._packed.read(8)

    def close(self) -> None:
        super().close()
        self._packed.close()


def _open(path: str) -> io.FileIO | None:
    """A regular file for reading; None where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return io.FileIO(fd)


def lines(file: Bytes) -> Iterator[bytes]:
    """The lines of a part with their ends, as `batches` has them."""
    for _, batch in batches(file):
        yield from batch


def batches(
    file: Bytes, start: int = 0, seen: Callable[[bytes], object] = lambda block: None
) -> Iterator[tuple[int, list[bytes]]]:
    """Lines that follow one another, with their ends, and the offset of the first; from byte `start` on.

    The last line comes also where it has no end. Of a line that is far too long, and where a compressed part breaks
    off, there is b"\\0". `seen` gets all the bytes.
    """
    file.seek(start)
    rest, skipped = b"", 0
    while True:
        try:
            block = file.read(_BLOCK)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            yield start, [b"\0"]
            return
        if not block:
            break
        seen(block)
        batch = io.BytesIO(rest + block).readlines()  # much faster than split
        rest = b"" if block.endswith(b"\n") else batch.pop()
        if skipped and batch:
            yield start, [b"\0"]
            start += skipped + len(batch.pop(0))
            skipped = 0
        if batch:
            yield start, batch
            start += sum(map(len, batch))
        if len(rest) > LINE_LIMIT:
            skipped += len(rest)
            rest = b""
    if rest or skipped:
        yield start, [b"\0" if skipped else rest]


def tail(path: str, size: int) -> list[bytes]:
    """The lines in the last `size` bytes of a history, over its parts, oldest first; one that is cut is left out."""
    found: list[bytes] = []
    for _, file in read(path, newest_first=True):
        data = _last(file, size)
        found[:0] = data.split(b"\n")[len(data) > size :]
        size -= len(data)
        if size <= 0:
            break
    return found


def whole(file: Bytes) -> bytes:
    """All plain bytes of a part; nothing of a compressed one that is broken."""
    try:
        return b"".join(iter(lambda: file.read(_BLOCK), b""))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return b""


def _last(file: Bytes, size: int) -> bytes:
    """The last bytes of a file, with the one before them where there is one."""
    if isinstance(file, gzip.GzipFile):
        return whole(file)[-size - 1 :]
    file.seek(max(file.seek(0, os.SEEK_END) - size - 1, 0))
    return whole(file)
