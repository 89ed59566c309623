"""Files that survive a crash: atomic whole-file writes, one-write appends, locks, rotation, bounded reads.

Hook-safe: os, fcntl, stat, errno only, Python 3.9 syntax. Errors are OSError unless said otherwise.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Union

    AnyPath = Union[str, os.PathLike[str]]

_POLL = 0.02
_ABANDONED = 3600  # seconds after which a temporary file has no writer any more
_LOCK = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_APPEND = _LOCK | os.O_APPEND | os.O_NONBLOCK
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class LockTaken(OSError):
    """Somebody else holds the lock and the time to wait for it is over."""


class NotDurable(OSError):
    """What was appended can be read, but the disk did not confirm that it is kept."""


class locked:
    """Hold a flock on `path` (made if missing, never unlinked) for the length of the block, alone unless `shared`.

    `timeout` in seconds: None waits for ever, 0 tries once. Raises LockTaken when it is over.
    """

    def __init__(self, path: AnyPath, *, timeout: float | None = None, shared: bool = False) -> None:
        self.path = os.fspath(path)
        self.timeout = timeout
        self.kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self.fd = -1

    def __enter__(self) -> locked:
        try:
            self.fd = open_own(self.path, _LOCK)
        except FileNotFoundError:
            make_folder(os.path.dirname(self.path))
            self.fd = open_own(self.path, _LOCK)
        try:
            self._acquire()
        except BaseException:
            os.close(self.fd)
            raise
        return self

    def _acquire(self) -> None:
        if self.timeout is None:
            fcntl.flock(self.fd, self.kind)
            return
        end = time.monotonic() + self.timeout
        while True:
            try:
                fcntl.flock(self.fd, self.kind | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise LockTaken(errno.EAGAIN, "locked by another process", self.path) from None
                time.sleep(_POLL)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.fd)


def open_own(path: AnyPath, flags: int) -> int:
    """A descriptor of a file that is the user's alone; where it is missing it is made with 0600, whatever the umask."""
    while True:
        try:
            return os.open(path, flags & ~os.O_CREAT)
        except FileNotFoundError:
            pass
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if os.path.islink(path):
                raise
            continue
        os.fchmod(fd, 0o600)
        return fd


def make_folder(path: AnyPath, mode: int = 0o700) -> None:
    """Make a folder and its missing parents, each with `mode` whatever the umask; existing ones stay as they are."""
    path = os.fspath(path)
    if not path or os.path.isdir(path):
        return
    make_folder(os.path.dirname(path), mode)
    try:
        os.mkdir(path, mode)
        os.chmod(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def read_bounded(path: AnyPath, limit: int) -> bytes:
    """The whole of a regular file. OSError EFBIG when it is larger than `limit`, EINVAL when it is no regular file."""
    fd = os.open(path, _READ)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        parts: list[bytes] = []
        left = limit + 1
        while left > 0:
            part = os.read(fd, min(left, 1 << 20))
            if not part:
                return b"".join(parts)
            parts.append(part)
            left -= len(part)
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", os.fspath(path))
    finally:
        os.close(fd)


def write_atomic(
    path: AnyPath, data: bytes | Iterable[bytes], mode: int | None = 0o600, *, durable: bool = True
) -> None:
    """Replace a file by `data` (or its pieces) so that a reader or a crash sees the old or the new whole, never a mix.

    `mode` None keeps the mode of the file that is there (0600 where there is none). `durable` False does not wait for
    the disk, for what may be lost: after a power cut the file can be empty.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    make_folder(folder)
    if mode is None:
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except FileNotFoundError:
            mode = 0o600
    temp = f"{path}.tmp-{os.getpid()}-{time.monotonic_ns()}"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            for piece in (data,) if isinstance(data, bytes) else data:
                _write_all(fd, piece)
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temp, path)
    except BaseException:
        _unlink_quietly(temp)
        raise
    if durable:
        _sync_folder(folder)
    _sweep(folder, os.path.basename(path) + ".tmp-")


def _sweep(folder: str, prefix: str) -> None:
    """Remove what writers that were killed have left."""
    for name in os.listdir(folder):
        if name.startswith(prefix):
            left = os.path.join(folder, name)
            try:
                if os.lstat(left).st_mtime < time.time() - _ABANDONED:
                    os.unlink(left)
            except OSError:
                continue


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _sync_folder(folder: str) -> None:
    fd = os.open(folder or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError:  # some file systems cannot sync a folder; the rename itself is done
        pass
    finally:
        os.close(fd)


def sidecar(path: AnyPath) -> str:
    """The lock file that belongs to an append-only file."""
    folder, name = os.path.split(os.fspath(path))
    return os.path.join(folder, f".{name}.lock")


def append(
    path: AnyPath,
    data: bytes,
    *,
    durable: bool = False,
    limit: int | None = None,
    part: Callable[[str], str] | None = None,
    wait: bool = True,
) -> None:
    """Append whole lines (`data` ends in a newline) by one write, under the file's sidecar lock.

    A torn last line (a crash in mid-write) is closed first; a short write (disk full) is taken back and raised, so that
    what was there before stays readable. `durable` waits for the disk; NotDurable where that fails, for which a second
    try says nothing: the system reports it once. `limit` rotates a file that would pass that many bytes, to the path
    that `part` gives for it. `wait` False (the hooks) goes on without the lock when somebody holds it: the write itself
    is still whole.
    """
    path = os.fspath(path)
    try:
        with locked(sidecar(path), timeout=None if wait else 0):
            _append_held(path, data, durable, limit, part)
    except LockTaken:
        _append_held(path, data, durable)


def _append_held(
    path: str, data: bytes, durable: bool, limit: int | None = None, part: Callable[[str], str] | None = None
) -> None:
    fd = open_own(path, _APPEND)
    try:
        size = os.fstat(fd).st_size
        if limit is not None and size > max(limit - len(data), 0):
            _rotate_held(path, part)
            os.close(fd)
            fd = -1
            fd = open_own(path, _APPEND)
            size = 0
        if not size and part is not None:
            _sync_folder(os.path.dirname(path))  # what it will hold must not lose its name, nor the part before it
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data
        written = os.write(fd, data)
        if written != len(data):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if durable:
            try:
                os.fsync(fd)
            except OSError as error:
                raise NotDurable(error.errno, error.strerror, path) from None
    finally:
        if fd >= 0:
            os.close(fd)


def rotate(path: AnyPath, part: Callable[[str], str] | None = None) -> None:
    """Rename an append-only file to the path that `part` gives for it, under its lock; nothing where it is empty."""
    path = os.fspath(path)
    with locked(sidecar(path)):
        try:
            full = os.lstat(path).st_size > 0
        except FileNotFoundError:
            return
        if full:
            _rotate_held(path, part)


def _rotate_held(path: str, part: Callable[[str], str] | None) -> None:
    os.rename(path, part(path) if part else f"{path}.{time.time_ns()}.{os.getpid()}")


def rotated(path: AnyPath) -> list[str]:
    """The rotated parts of an append-only file, oldest first (not the file itself)."""
    folder, name = os.path.split(os.fspath(path))
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    parts = [n for n in names if n.startswith(name + ".") and n[len(name) + 1 :].replace(".", "").isdigit()]
    return [os.path.join(folder, n) for n in sorted(parts, key=lambda n: int(n[len(name) + 1 :].split(".")[0]))]


def move_aside(path: AnyPath, stamp: str) -> str:
    """Rename a corrupt file to `PATH.corrupt-STAMP`, so that it is neither used nor overwritten; its new path."""
    wanted = target = f"{os.fspath(path)}.corrupt-{stamp}"
    again = 1
    while os.path.lexists(target):  # an earlier one of the same moment stays too
        again += 1
        target = f"{wanted}.{again}"
    os.rename(path, target)
    return target
