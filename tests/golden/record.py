"""Records what the real client says, for the unit tests:

    python -m tests.golden.record CLIENT

plays every scenario, and one run with the PostToolUse hook, and writes `claude/VERSION/*.jsonl` and
`hooks/VERSION/*.json` beside this file, with paths, ids, times and ports made constant and long lists left out.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from scheduler.execution.claude import client_version, hook_settings
from tests.client import Ran, client_environment, execution, run_client
from tests.scenarios import SCENARIOS, Scenario
from tests.standin import StandIn, text, tool

HERE = Path(__file__).parent
HOOK = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read().strip() + b'\\n')"
NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": "c1",
            "metadata": {},
            "outputs": [],
            "source": ["print(1)"],
        }
    ],
    "metadata": {"language_info": {"name": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}
_LEFT_OUT = (
    "agents capabilities memory_paths messaging_socket_path plugins skills slash_commands terminal_slash_commands tools"
).split()


def play(client: Path, scenario: Scenario, folder: Path) -> Ran:
    """One scenario with the real client, in `folder`, which holds its home and its working tree."""
    home, work = folder / "home", folder / "work"
    home.mkdir(parents=True)
    work.mkdir()
    for name, content in scenario.files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(content)
    fields: dict[str, Any] = {"command": "do the work", **scenario.execution}
    with StandIn() as api:
        api.play(scenario.turns)
        api.play(scenario.subagent or [text("no script")], when="SUBAGENT")
        return run_client(
            client,
            execution(**fields),
            cwd=work,
            env=client_environment(home, api, scenario.login),
            session_id=str(uuid.uuid4()),
            settings=scenario.settings,
        )


def edit_with_hook(client: Path, home: Path, worktree: Path) -> tuple[Ran, list[dict[str, Any]]]:
    """The client writes, edits, edits a notebook and lets a subagent write in `worktree`, without a bypass of its
    permissions; returned are the inputs of our PostToolUse hook."""
    heard = home / "heard.jsonl"
    (worktree / "old.txt").write_text("one\n")
    (worktree / "book.ipynb").write_text(json.dumps(NOTEBOOK))
    with StandIn() as api:
        api.play(
            [
                tool("Write", file_path=str(worktree / "new.txt"), content="hello\n"),
                tool("Read", file_path=str(worktree / "old.txt")),
                tool("Edit", file_path=str(worktree / "old.txt"), old_string="one", new_string="two"),
                tool("Read", file_path=str(worktree / "book.ipynb")),
                tool("NotebookEdit", notebook_path=str(worktree / "book.ipynb"), cell_id="c1", new_source="print(2)"),
                tool("Agent", description="write", prompt="SUBAGENT: write it", subagent_type="general-purpose"),
                text("Done."),
            ]
        )
        written = tool("Write", file_path=str(worktree / "sub.txt"), content="s\n")
        api.play([written, text("sub done")], when="SUBAGENT")
        ran = run_client(
            client,
            execution(),
            cwd=worktree,
            env=client_environment(home, api),
            session_id=str(uuid.uuid4()),
            settings=hook_settings([sys.executable, "-I", "-S", "-c", HOOK, str(heard)]),
        )
    return ran, [json.loads(line) for line in heard.read_text().splitlines()]


def scrub(line: str, folder: Path) -> str:
    """A line of JSON without what differs from one recording to the next."""
    line = line.replace(str(folder).replace("/", "-"), "-home-person").replace(str(folder), "/home/person")
    line = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:80", line)
    line = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "00000000-0000-4000-8000-000000000000", line)
    line = re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+Z", "2026-01-01T00:00:00.000Z", line)
    message = json.loads(line)
    for name in _LEFT_OUT:
        message.pop(name, None)
    return json.dumps(message, ensure_ascii=False)


def record(client: Path) -> None:
    version = client_version(client, {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"})
    streams, hooks = HERE / "claude" / version, HERE / "hooks" / version
    streams.mkdir(parents=True, exist_ok=True)
    hooks.mkdir(parents=True, exist_ok=True)
    for name, scenario in SCENARIOS.items():
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made).resolve()
            ran = play(client, scenario, folder)
            lines = ran.stdout.decode().splitlines()
            (streams / f"{name}.jsonl").write_text("".join(scrub(line, folder) + "\n" for line in lines))
            print(f"{name}: {ran.verdict}")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        worktree = folder / "worktree"
        worktree.mkdir()
        for heard in edit_with_hook(client, folder, worktree)[1]:
            name = heard["tool_name"] + ("-in-subagent" if "agent_id" in heard else "")
            (hooks / f"{name}.json").write_text(scrub(json.dumps(heard), folder) + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]).absolute())
