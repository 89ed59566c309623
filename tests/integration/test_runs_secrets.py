"""No secret of a run reaches a disk, and none goes into work that is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import Rig, rig, shell_task

CANARY = "canary-" + "5f0c8e1d9ab34c67"
TOKEN = "ghp_" + "Zx9" * 12


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


def holding(folder: Path, text: str, *, but: tuple[str, ...] = ()) -> list[str]:
    """The files below a folder that hold `text`."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes():
            found.append(str(path))
    return [path for path in found if not path.endswith(but)]


def test_what_a_run_says_is_kept_without_its_secrets(own: Rig, tmp_path: Path) -> None:
    script = f"echo $DEPLOY_TOKEN; echo {TOKEN} >&2; printf 'half %s' $DEPLOY_TOKEN; exit 3"
    own.enable(shell_task("job", script, execution={"env": {"DEPLOY_TOKEN": CANARY}}))
    own.start()
    record = own.run_to_end("job")
    assert record["status"] == "failure" and "[REDACTED:" in record["output"]
    own.stop()
    # The config holds what its author wrote into it, and the approval is a copy of that.
    known = ("config.json", "trust.json", "state.db", "state.db-wal")
    assert holding(tmp_path, CANARY, but=known) == []
    assert holding(tmp_path, TOKEN, but=known) == []


@pytest.mark.parametrize("commits", [False, True])
def test_a_secret_in_the_work_fails_the_run(own: Rig, commits: bool) -> None:
    script = f"echo 'token = \"{TOKEN}\"' > settings.py"
    script += "; git add -A; git commit -q -m x; git rm -q settings.py; git commit -q -m y" if commits else ""
    own.enable(shell_task("job", script, worktree={"push": True}))
    remote = own.home / "remote.git"
    own.git("init", "-q", "--bare", str(remote))
    own.git("remote", "add", "origin", str(remote))
    own.start()
    record = own.run_to_end("job")
    assert (record["status"], record["reason"]) == ("failure", "secret-in-work"), record
    assert "settings.py" in record["error"] and TOKEN not in record["error"]
    assert own.git("for-each-ref", "refs/heads/claude-task") == ""
    assert own.git("for-each-ref", cwd=remote) == ""
    assert record["discardedRef"] in own.git("for-each-ref")


def test_a_secret_that_was_there_before_is_no_news(own: Rig) -> None:
    (own.project / "settings.py").write_text(f'token = "{TOKEN}"\n')
    own.git("add", "-A")
    own.git("commit", "-q", "-m", "a mistake of old")
    own.enable(shell_task("job", "sed -i 's/^/# /' settings.py; echo more > more.txt"))
    own.start()
    assert own.run_to_end("job")["status"] == "success"
    assert os.path.exists(own.paths.global_history)
