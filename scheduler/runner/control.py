"""The runner's control socket: one JSON line asks, one answers. Both ends are here, and how a runner is started.

The socket is 0600 in a 0700 folder. A socket's path may not pass 104 bytes, so both ends go into the folder and use the
bare name.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scheduler
from scheduler.disk import files
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import process

if TYPE_CHECKING:
    import asyncio

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
LINE_LIMIT = 4 * 1024 * 1024
START_TIMEOUT = 10.0
GIVEN_WAY = 1.0  # seconds that the runner which came first still gets to answer


@contextmanager
def _inside(folder: str) -> Iterator[None]:
    back = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(back)
        os.close(back)


def listen(path: str) -> socket.socket:
    """A listening socket at `path`; the caller holds the runner's lock, so whatever lies there is stale."""
    folder, name = os.path.split(path)
    with _inside(folder):
        if os.path.lexists(name):
            os.unlink(name)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            server.bind(name)
        finally:
            os.umask(old)
    server.listen(64)
    server.setblocking(False)
    return server


async def serve(server: socket.socket, handle: Handler) -> asyncio.AbstractServer:
    """Answer each request by `handle`; a SchedulerError becomes an answer, anything else too."""
    import asyncio  # only here: the command line asks, and need not wait for this

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 10)
            if line:
                writer.write(json.dumps(await _answer(line, handle)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError, asyncio.TimeoutError):
            pass  # the one who asked has gone, or never asked
        finally:
            writer.close()

    return await asyncio.start_unix_server(client, sock=server, limit=LINE_LIMIT)


async def _answer(line: bytes, handle: Handler) -> dict[str, Any]:
    try:
        asked = json.loads(line)
        if not isinstance(asked, dict):
            raise SchedulerError("a request is a JSON object")
        return {"ok": True, **await handle(asked)}
    except SchedulerError as error:
        return {"ok": False, "error": error.message, "hint": error.hint}
    except ValueError as error:
        return {"ok": False, "error": f"not a request: {error}", "hint": ""}


def request(paths: Paths, asked: Mapping[str, Any], timeout: float = 10.0) -> dict[str, Any] | None:
    """The runner's answer; None when no runner lives. SchedulerError when it refuses or does not answer in time."""
    folder, name = os.path.split(paths.runner_sock)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        try:
            with _inside(folder):
                client.connect(name)
            client.sendall(json.dumps(asked).encode() + b"\n")
            line = _read_line(client)
        except (FileNotFoundError, ConnectionError, NotADirectoryError):
            return None
        except TimeoutError:
            mend = f"see {paths.runner_log}; if it stays so: kill -9 {_peer(client)}, then 'start'"
            raise SchedulerError("the runner does not answer", mend) from None
    if not line:
        return None
    answer: dict[str, Any] = json.loads(line)
    if not answer.pop("ok"):
        raise SchedulerError(answer["error"], answer["hint"])
    return answer


def _peer(client: socket.socket) -> str:
    """The process that listens, where the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return "PID"
    pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return str(pid)


def _read_line(client: socket.socket) -> bytes:
    parts = []
    while True:
        part = client.recv(1 << 16)
        if part:
            parts.append(part)
        if not part or part.endswith(b"\n"):
            return b"".join(parts)


def package_folder() -> str:
    """The folder of this package: with `sys.executable -I` in front, the way to start ourselves."""
    return str(Path(scheduler.__file__).resolve().parent)


def ensure_runner(paths: Paths, env: Mapping[str, str], now: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """The status of the living runner, started if there was none. SchedulerError, with the log's end, when it fails."""
    answer = request(paths, {"verb": "status"})
    if answer is not None:
        return answer
    files.make_folder(paths.state)
    log = Path(paths.runner_log)
    pid = process.spawn_detached([sys.executable, "-I", package_folder(), "runner"], env=dict(env), log=log)
    end = now() + START_TIMEOUT
    while now() < end:
        time.sleep(0.02)
        answer = request(paths, {"verb": "status"})
        if answer is not None:
            return answer
        if process.start_time(pid) is None:  # it failed, or gave way to another that is just starting
            end = min(end, now() + GIVEN_WAY)
    raise SchedulerError("the runner did not start" + _last_words(log), f"see {log}")


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return f": {lines[-1][:200]}" if lines else ""
