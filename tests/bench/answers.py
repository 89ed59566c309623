"""The slash commands that only show something: the time of their answer, with a long history on disk.

Through the hook's own command, as the client starts it; and, where a client is given, in the real client, from Enter
to the last line of the text on the screen.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from scheduler.disk import paths
from tests.bench import figures
from tests.bench.call import Call, took
from tests.client import API_KEY, client_environment
from tests.hooks import SESSION
from tests.plugin import copy_plugin
from tests.rig import Rig, rig, shell_task
from tests.standin import StandIn
from tests.terminal import client_screen, trust

GOAL = 400.0  # ms, from Enter to text
VERBS = ("status", "list", "next", "history", "history --status failure", "stats")
TASKS, RECORDS = 50, 100_000
SESSIONS = 20  # of the real client at most
CALM_PATIENCE = 5.0  # seconds to wait for others to leave the machine alone
KEYS = "/scheduler:status"


def measure(folder: Path, rounds: int, client: str | None) -> tuple[str, list[str]]:
    """Tables of both, and what missed its goal."""
    with rig(folder, {"XDG_CACHE_HOME": str(folder / "cache")}) as own:
        own.enable(*tasks())
        write_history(own, RECORDS)
        pid = own.start()
        plugin = copy_plugin(folder / "plugin")
        subprocess.run([plugin / "scripts" / "scheduler", "--version"], env=own.env, check=True, capture_output=True)
        settle(pid)
        found = {f"/scheduler:{verb}": by_hook(own, plugin, verb, rounds) for verb in VERBS}
        if client is not None:
            found[f"{KEYS} in the real client, Enter to text"] = in_client(own, plugin, client, rounds)
    return table(found), [
        f"{name}: {statistics.median(values):.0f} ms"
        for name, values in found.items()
        if statistics.median(values) > GOAL
    ]


def tasks() -> list[dict[str, Any]]:
    """One a minute, every weekday, in an hour that does not come soon."""
    hour = (datetime.now(timezone.utc).hour + 4) % 24
    cron = {"type": "cron", "timezone": "UTC"}
    return [
        shell_task(f"task-{number:02}", "true", trigger={**cron, "expression": f"{number} {hour} * * 1-5"})
        for number in range(TASKS)
    ]


def settle(pid: int) -> None:
    """Wait until a runner that has just met a long history has put it in order."""
    before = figures.usage(pid)
    time.sleep(2)
    while figures.usage(pid).since(before).cpu > 0.1:
        before = figures.usage(pid)
        time.sleep(2)


def write_history(own: Rig, count: int) -> None:
    """So many runs, one every five minutes until now, as their last lines."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    file = Path(paths.history_file(str(own.project)))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as out:
        for number in range(count):
            begin = now - timedelta(minutes=5 * (count - number))
            out.write(json.dumps(record(own, number, begin)) + "\n")


def record(own: Rig, number: int, begin: datetime) -> dict[str, Any]:
    """A run as it is on record; every tenth has failed."""
    task = f"task-{number % TASKS:02}"
    failed = number % 10 == 0
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))),
        "taskId": task,
        "taskName": task.replace("-", " "),
        "project": str(own.project),
        "startedAt": begin.isoformat(),
        "completedAt": (begin + timedelta(minutes=2)).isoformat(),
        "status": "failure" if failed else "success",
        "reason": "verify-failed" if failed else "no-changes",
        "duration": 120_000,
        "triggeredBy": "schedule",
        "attempt": 1,
        "isolated": True,
        "costUsd": 0.12,
        "output": "All tests passed; nothing had to be changed. " * 4,
    }


def by_hook(own: Rig, plugin: Path, verb: str, rounds: int) -> list[float]:
    """Milliseconds of the hook's command."""
    name, _, words = verb.partition(" ")
    event = {
        "session_id": SESSION,
        "cwd": str(own.project),
        "hook_event_name": "UserPromptExpansion",
        "command_name": f"scheduler:{name}",
        "command_args": words,
    }
    call = Call(["sh", str(plugin / "scripts" / "scheduler"), "answer"], own.project, json.dumps(event).encode())
    return [took(call, own.env) for _ in range(rounds + 2)][2:]


def in_client(own: Rig, plugin: Path, client: str, rounds: int) -> list[float]:
    """Milliseconds from Enter until the text is on the screen; each in a session of its own, where it is new."""
    trust(own.home, own.project, API_KEY["ANTHROPIC_API_KEY"])
    found = []
    with StandIn() as api:
        env = {**client_environment(own.home, api), **own.env}
        for _ in range(min(rounds, SESSIONS)):
            with client_screen([client, "--plugin-dir", str(plugin)], own.project, env) as screen:
                screen.wait_for("Scheduler: on")
                screen.send(KEYS)
                screen.wait_for(KEYS)
                figures.calm(CALM_PATIENCE)  # the client too has come to rest
                begin = time.perf_counter()
                screen.send("\r")
                screen.wait_for(f"{TASKS} of {TASKS} tasks active")
                found.append((time.perf_counter() - begin) * 1000)
    return found


def table(found: Mapping[str, Sequence[float]]) -> str:
    """Percentiles in milliseconds."""
    lines = [
        f"Answered by hook, {RECORDS:,} records of {TASKS} tasks",
        "",
        "| | p50 ms | p95 | p99 | goal |",
        "|---|---|---|---|---|",
    ]
    for name, values in found.items():
        numbers = " | ".join(f"{figures.percentile(values, share):.0f}" for share in (0.5, 0.95, 0.99))
        lines.append(f"| {name} | {numbers} | ≤ {GOAL:.0f} |")
    return "\n".join(lines)
