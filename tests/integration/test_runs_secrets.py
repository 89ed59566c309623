"""No secret of a run reaches a disk, and none goes into work that is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.errors import SchedulerError
from tests.command import Command
from tests.rig import Rig, rig, shell_task

CANARY = "canary-" + "5f0c8e1d9ab34c67"
TOKEN = "ghp_" + "Zx9" * 12


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, {"DEPLOY_TOKEN": CANARY}) as made:
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
    known = ("config.json", "trust.json")
    assert holding(tmp_path, TOKEN, but=known) == holding(tmp_path, CANARY, but=known) == []


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


def test_h1_a_secret_over_two_streams_is_in_no_log(own: Rig) -> None:
    half, rest = CANARY[:12], CANARY[12:]
    halves = {"execution": {"env": {"FIRST": half, "REST": rest}}}
    own.enable(
        shell_task("job", 'printf "a $FIRST"; printf "$REST b\\n" >&2; echo " c"; exit 3', **halves),
        shell_task("slow", 'printf "$FIRST" >&2; sleep 0.3; printf "$REST\\n"; sleep 0.3; echo end', **halves),
        plant=False,
    )
    own.start()
    records = [own.run_to_end("job"), own.run_to_end("slow")]
    logs = "".join(path.read_text() for path in Path(own.project, ".omc/scheduler/logs").glob("*.log"))
    assert half not in logs and rest not in logs, logs
    assert "a [REDACTED:known] c\n" in logs and "[REDACTED:known] b\n" in logs and "] end\n" in logs
    assert all(half not in record["output"] and rest not in record["output"] for record in records)


def test_h4_a_secret_of_a_command_is_not_on_a_command_line(own: Rig) -> None:
    look = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; done > seen.txt 2>/dev/null; set -e; env > env.txt"
    own.enable(shell_task("job", f'T={TOKEN}\n{look}\ntest -z "$hidden$SCHEDULER_COMMAND"; echo $0; exit 7'))
    own.start()
    record = own.run_to_end("job")
    assert record["exitCode"] == 7, record
    seen = own.git("show", f"{record['discardedRef']}:seen.txt") + own.git("show", f"{record['discardedRef']}:env.txt")
    assert "SCHEDULER_RUN_ID" in seen and "eval" in seen and TOKEN not in seen


def test_h4_names_that_hold_secrets_go_nowhere(own: Rig, tmp_path: Path) -> None:
    task = shell_task("job", "echo more > more.txt; git add -A; git commit -qm 'of the agent'; echo > left.txt")
    other = {**shell_task("other", "touch made; exit 3"), "name": f"Other {CANARY}"}
    bad = shell_task("bad", "true", worktree={"branchPrefix": f"{TOKEN}/"})
    worse = shell_task(CANARY, "true")
    own.enable(
        {**task, "name": f"Deploy with {TOKEN} and {CANARY}"},
        other,
        bad,
        worse,
        shell_task("last", "true"),
        suspended=True,
    )
    assert own.env["DEPLOY_TOKEN"] == CANARY
    own.start()
    done, undone = own.run_to_end("job"), own.run_to_end("other")
    assert done["taskName"] == "Deploy with [REDACTED:github-token] and [REDACTED:known]"
    said = own.git("log", "-1", "--format=%B", done["worktreeBranch"])
    assert said.startswith("Deploy with [REDACTED:github-token] and [REDACTED:known]\n")
    assert "[REDACTED:known]" in own.git("log", "-1", "--format=%B", undone["discardedRef"])
    for task_id in ("bad", CANARY):
        with pytest.raises(SchedulerError, match="its id or branchPrefix holds a secret"):
            own.run(task_id)
    own.stop()
    known = ("config.json", "trust.json")
    assert holding(tmp_path, TOKEN, but=known) == holding(tmp_path, CANARY, but=known) == []


def test_h4_check_tells_of_names_that_cannot_be_written(own: Rig) -> None:
    own.enable(shell_task("bad", "true", worktree={"branchPrefix": f"{TOKEN}/"}), suspended=True)
    said = Command(own.project, own.env)("check", code=1)
    assert "tasks[0]: its id or branchPrefix holds a secret" in said.out


def test_a_secret_that_was_there_before_is_no_news(own: Rig) -> None:
    (own.project / "settings.py").write_text(f'token = "{TOKEN}"\n')
    own.git("add", "-A")
    own.git("commit", "-q", "-m", "a mistake of old")
    own.enable(shell_task("job", "sed -i 's/^/# /' settings.py; echo more > more.txt"))
    own.start()
    assert own.run_to_end("job")["status"] == "success"
    assert os.path.exists(own.paths.global_history)
