"""logs: what a task said."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator

import click

from scheduler.cli import output, record
from scheduler.cli.context import Context, json_option, project_option, task_argument
from scheduler.disk import files, paths
from scheduler.errors import SchedulerError, UsageError

FOLLOW = 0.2  # seconds between two looks at a log that is followed


@click.command()
@task_argument
@click.option("--follow", "-f", is_flag=True, help="Go on, as it is written.")
@click.option("--lines", "-n", type=click.IntRange(0), default=50, show_default=True, help="So many of the last lines.")
@click.option("--error", is_flag=True, help="What it wrote to standard error.")
@click.option("--run", "run_id", metavar="RUN", help="Only what this run said.")
@project_option
@json_option
@click.pass_obj
def logs(
    context: Context, /, task_id: str, follow: bool, lines: int, error: bool, run_id: str | None, folder: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Tell what the task ID said."""
    if follow and as_json:
        raise UsageError("--json is of what was said, --follow of what will be", "give one of them")
    root = context.root(folder)
    path = paths.task_log(root, task_id, error=error)
    wanted = None if run_id is None else record.find(context.paths, root, run_id)["id"][:8]
    if not follow and not os.path.exists(path) and not files.rotated(path):
        raise SchedulerError(f"there is no {'error ' if error else ''}log of {task_id!r:.80} yet", "see 'history'")
    file = _open(path)
    found = _tail(path, file, lines, wanted)
    if as_json:
        output.say_json([_parts(line) for line in found])
        return
    for line in found:
        output.say(line)
    if follow:
        for line in _follow(path, file):
            if wanted is None or _is_of(line, wanted):
                output.say(line)


def last_lines(path: str, count: int, run: str | None) -> list[str]:
    """The last lines of a log; those of one run (eight characters). None where there is no log."""
    return _tail(path, _open(path), count, run)


def _tail(path: str, file: io.FileIO | None, count: int, run: str | None) -> list[str]:
    """The last whole lines of a log that is open, and of the parts before it; those of one run (eight characters).

    The file is left where what comes next begins.
    """
    data = b"" if file is None else file.readall()
    if file is not None:
        file.seek(data.rfind(b"\n") + 1)
    found = _lines(data, count, run)
    for part in reversed(files.rotated(path)):
        if len(found) >= count:
            break
        if file is not None and _is_same(file, part):
            continue
        before = _open(part)
        if before is not None:
            with before:
                found = _lines(before.readall(), count - len(found), run) + found
    return found


def _lines(data: bytes, count: int, run: str | None) -> list[str]:
    lines = map(_text, data.split(b"\n")[:-1])
    mine = [line for line in lines if run is None or _is_of(line, run)]
    return mine[max(len(mine) - count, 0) :]


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _is_of(line: str, run: str) -> bool:
    return line.partition("] [")[2].startswith(f"{run}]")


def _parts(line: str) -> dict[str, str]:
    """A line as JSON; one that was not written by us is text alone."""
    when, bracket, rest = line.partition("] [")
    run, end, text = rest.partition("] ")
    if not (bracket and end and when.startswith("[")):
        return {"text": line}
    return {"time": when[1:], "run": run, "text": text}


def _follow(path: str, file: io.FileIO | None) -> Iterator[str]:
    """The lines of an open log from where it is read to, as they come, through every rotation, for ever."""
    rest = b""
    while True:
        # Looked up before the read: once a file is renamed nobody writes to it, so the read after that is its last.
        later = _later(file, path)
        data = file.read(1 << 20) if file is not None else b""
        *whole, rest = (rest + (data or b"")).split(b"\n")
        yield from map(_text, whole)
        if data:
            if later is not None:
                later.close()
        elif later is not None:
            if file is not None:
                file.close()
            file, rest = later, b""
        else:
            time.sleep(FOLLOW)


def _later(file: io.FileIO | None, path: str) -> io.FileIO | None:
    """The part of the log that comes after `file`, opened; None while there is none."""
    if file is None:
        return _open(path)
    parts = [*files.rotated(path), path]
    at = next((at for at, part in enumerate(parts) if _is_same(file, part)), None)
    if at is None:  # removed by the retention
        return _open(path)
    return _open(parts[at + 1]) if at + 1 < len(parts) else None


def _open(path: str) -> io.FileIO | None:
    try:
        return io.FileIO(path)
    except FileNotFoundError:
        return None


def _is_same(file: io.FileIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
