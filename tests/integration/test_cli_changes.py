"""`scheduler changes`: lines as the real hook writes them, and the work of real runs held against git."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import paths
from scheduler.hooks import change
from scheduler.hooks.place import Place
from tests.command import Command
from tests.hooks import ROOT, SESSION
from tests.rig import Rig, rig, shell_task

OTHER = "0ther000-0000-4000-8000-000000000000"
# What a run does whose agent writes two files by tools, which the hook notes, and others by the shell.
AGENT = """
hook() {
    printf '{"session_id":"%s","cwd":"%s","tool_name":"Write","tool_use_id":"%s","tool_input":{"file_path":"%s"},
        "tool_response":{"type":"create","structuredPatch":[],"originalFile":null}}' run "$PWD" "$1" "$PWD/$1" |
        tr -d '\\n' | sh HOOK post_tool_use
}
mkdir src; echo one > src/tool.py; hook src/tool.py
echo two > 'by tool.txt'; hook 'by tool.txt'
echo three > 'by shell.txt'; echo changed >> file.txt; rm gone.txt
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def cli(own: Rig) -> Command:
    return Command(own.project, {**own.env, "TZ": "UTC"})


def note(own: Rig, number: int, *, session: str = SESSION, ago: float = 0, **fields: Any) -> dict[str, Any]:
    """A line as the hook makes it of a Write in a session."""
    root = str(own.project)
    file = own.project / f"file-{number}.txt"
    file.write_text("content\n" * number)
    event = {
        "session_id": session,
        "cwd": root,
        "tool_name": "Write",
        "tool_use_id": f"toolu_{number}",
        "tool_input": {"file_path": str(file), "content": "content\n" * number},
        "tool_response": {"type": "create", "structuredPatch": [], "originalFile": None},
    }
    now = file.stat().st_mtime - ago
    line = {**change.record(event, Place(root, root), "", "", now), **fields}
    log = Path(paths.file_changes(root))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as out:
        out.write(json.dumps(line) + "\n")
    return line


def shown(said: Any) -> list[str]:
    return [one["path"] for one in said.json]


def test_the_latest_changes_are_told_each_once_and_by_filter(own: Rig, cli: Command) -> None:
    assert cli("changes").out == "no tool changed a file\n"
    note(own, 1, ago=3 * 86400)
    note(own, 2, session=OTHER, ago=7200)
    note(own, 3, task="nightly", run=SESSION)
    note(own, 3, task="nightly", run=SESSION)  # seen by two hooks
    with open(paths.file_changes(str(own.project)), "ab") as file:
        file.write(b'{"path": 3}\nnonsense\n\xff\n{"path": "odd\\u001b[31m", "time": 3, "bytesAfter": "x", "run": 5}\n')
    assert shown(cli("changes", "--json")) == ["file-1.txt", "file-2.txt", "file-3.txt", "odd\x1b[31m"]
    assert shown(cli("changes", "--json", "--since", "1d")) == ["file-2.txt", "file-3.txt"]
    assert shown(cli("changes", "--json", "--task", "nightly")) == ["file-3.txt"]
    assert shown(cli("changes", "--json", "--session", OTHER[:5])) == ["file-2.txt"]
    said = cli("changes", "-n", "2")
    assert said.err == "the last 2 of 4; --limit 0 shows all\n" and "\x1b" not in said.out
    lines = cli("changes", "--session", SESSION).out.splitlines()
    assert lines[0].split() == ["WHEN", "TOOL", "KIND", "SIZE", "LINES", "TASK", "RUN", "SESSION", "PATH"]
    assert lines[1].split() == ["3d", "ago", "Write", "create", "8", "B", "+1", "-0", SESSION[:8], "file-1.txt"]
    assert lines[2].split()[-3:] == ["nightly", SESSION[:8], "file-3.txt"]
    assert "is no moment" in cli("changes", "--since", "someday", code=2).err
    assert "no run 'abcdef'" in cli("changes", "abcdef", code=1).err


@pytest.mark.parametrize("fails", [False, True])
def test_of_a_run_what_git_saw_beside_the_tools_is_told(own: Rig, cli: Command, fails: bool) -> None:
    (own.project / "gone.txt").write_text("gone\n")
    own.git("add", "-A")
    own.git("commit", "-q", "-m", "second")
    runtime = Path(own.paths.runtime)
    runtime.parent.mkdir(parents=True)
    runtime.write_text(f"{os.path.realpath(sys.executable)}\n{sys.executable}\n{ROOT / 'scheduler'}\n0.1.0\n")
    command = AGENT.replace("HOOK", str(ROOT / "scripts" / "hook")) + ("exit 3" if fails else "")
    own.enable(shell_task("work", command), shell_task("idle", "true"), shell_task("bare", "echo x > new.txt",
               execution={"worktree": {"enabled": False}}))  # fmt: skip
    own.start()
    run = own.run_to_end("work")
    assert run["status"] == ("failure" if fails else "success")
    told = cli("changes", run["id"][:8], "--json").json
    assert [(one["path"], one["in"], one["task"]) for one in told["changes"]] == [
        ("src/tool.py", "worktree", "work"),
        ("by tool.txt", "worktree", "work"),
    ]
    assert told["unexplained"] == [
        {"path": "by shell.txt", "kind": "create"},
        {"path": "file.txt", "kind": "update"},
        {"path": "gone.txt", "kind": "delete"},
    ]
    said = cli("changes", run["id"]).out
    assert "git saw 3 files more, by no tool call" in said and "delete  gone.txt" in said
    idle = own.run_to_end("idle")
    assert cli("changes", idle["id"]).out == "no tool changed a file\n\ngit saw no other file change\n"
    if fails:
        bare = own.run_to_end("bare")
        assert cli("changes", bare["id"], "--json").json["unexplained"] is None
        assert "not known: the run had no worktree" in cli("changes", bare["id"]).out
        cli("discard", run["id"], "--yes")
        assert "not known: run" in cli("changes", run["id"]).out
