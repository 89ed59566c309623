"""What a run left, and what the command line says and does of it: the worktree that stays, the checkout it changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Command, environment
from tests.rig import Rig, rig

NEVER = ["--cron", "0 0 29 2 *"]


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def cli(living: Rig) -> Command:
    return Command(living.project, environment(living.home, Path(living.paths.state), PATH=living.env["PATH"]))


def test_a_failed_runs_worktree_that_stays(cli: Command, living: Rig) -> None:
    cli("add", "Idle", *NEVER, "--shell", "true")
    cli("add", "Bad", *NEVER, "--shell", "echo half > half.txt; exit 3")
    cli("enable", "--yes")
    idle = cli("run", "idle", "--wait", "--json").json
    trash = Path(idle["worktreePath"]).parent / ".trash"
    if trash.exists():
        trash.rmdir()
    trash.write_text("in the way")
    run = cli("run", "bad", "--wait", "--json", code=1).json
    short, branch = run["id"][:8], run["worktreeBranch"]
    assert run["discardedRef"] and Path(run["worktreePath"]).is_dir()
    opened = cli("status", "--json").json["projects"][0]["open"]
    assert [(one["kind"], one["run"]) for one in opened] == [("failed", short), ("kept-worktree", short)]
    assert f"worktree {run['worktreePath']} stays" in " ".join(cli("status", COLUMNS="400").out.split())
    refused = cli("merge", short, code=1).err
    assert "is no success" in refused and f"'adopt {short}'" in refused
    adopted = cli("adopt", short, "--json").json["branch"]
    assert living.git("show", f"{adopted}:half.txt") == "half\n"
    trash.unlink()
    named = cli("discard", short, code=1).err
    for text in (branch, run["discardedRef"], run["worktreePath"]):
        assert text in named
    dropped = cli("discard", short, "--yes").out
    for text in (branch, run["discardedRef"], run["worktreePath"]):
        assert text in dropped
    assert not Path(run["worktreePath"]).exists()
    assert "stays" not in cli("status").out
    assert "had left nothing" in cli("discard", short).out


def test_a_failed_run_that_was_not_isolated(cli: Command, living: Rig) -> None:
    cli("add", "Bare", *NEVER, "--shell", "echo half > half.txt; exit 3", "--no-worktree")
    cli("enable", "--yes")
    run = cli("run", "bare", "--wait", "--json", code=1).json
    short = run["id"][:8]
    for words in (["diff", short], ["merge", short], ["adopt", short], ["discard", short, "--yes"]):
        assert "was not isolated: what it changed is in your checkout" in cli(*words, code=1).err
    said = " ".join(cli("status", COLUMNS="400").out.split())
    assert f"'show {short}', 'logs bare' or 'retry {short}'" in said and "'adopt" not in said and "'diff" not in said
    assert (living.project / "half.txt").exists()


def test_a_pipe_among_the_branches_holds_no_status_up(cli: Command, living: Rig) -> None:
    """Git would wait for it without end; what cannot be asked is said, and the rest is told as ever."""
    cli("add", "Good", *NEVER, "--shell", "echo new > new.txt")
    cli("enable", "--yes")
    assert cli("run", "good", "--wait", "--json").json["status"] == "success"
    pipe = living.project / ".git/refs/heads/x"
    os.mkfifo(pipe)
    said = cli("status")
    assert f"which branches wait for review is not known: {pipe} is no file" in " ".join(said.out.split())
    assert "✓ success" in said.out
    pipe.unlink()
    assert "waits for review" in cli("status").out
