"""`sandbox: bwrap`: what a run can write to and see in it; that nothing runs without it; that all else is as before."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import paths as places
from scheduler.disk.paths import Paths
from scheduler.execution import sandbox
from tests import repos
from tests.boxes import BECOME_NOBODY, need_sandbox, open_to_nobody
from tests.command import Command
from tests.puppet import Puppet, act, limited
from tests.repos import git
from tests.rig import Rig, rig, shell_task, wait_until
from tests.runs import branch_tree, branches, changed, discarded_tree, fingerprint, nothing_left


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _needs_bubblewrap(request: pytest.FixtureRequest) -> None:
    if "without_bubblewrap" not in request.node.name:
        need_sandbox()


def boxed(task_id: str, command: str, **execution: Any) -> dict[str, Any]:
    worktree = execution.pop("worktree", {})
    return shell_task(task_id, command, execution={"sandbox": "bwrap", **execution}, worktree=worktree)


def test_a_run_writes_to_its_worktree_and_commits(own: Rig) -> None:
    setup, verify = "echo setup > setup.txt", "test -e made && test -e setup.txt && echo verified > /tmp/x"
    command = "echo run > made; git add made; git commit -qm own; git checkout -qb x; git checkout -q -; echo 2 > late"
    own.enable(boxed("good", f'{command}; test -n "$TMPDIR" && mktemp', worktree={"setup": setup}, verify=verify))
    own.start()
    before = fingerprint(own.project)
    record = own.run_to_end("good")
    assert (record["status"], record.get("reason"), record["sandbox"]) == ("success", None, "bwrap"), record
    tree = branch_tree(own.project, record)
    assert (tree["made"][1], tree["late"][1], tree["setup.txt"][1]) == (b"run\n", b"2\n", b"setup\n")
    assert changed(before, fingerprint(own.project)) == set()
    assert len(git("log", "--format=%h", f"main..{record['worktreeBranch']}", cwd=own.project).split()) == 2
    nothing_left(own)


FORBIDDEN = """
try() { if "$@" 2>/dev/null; then echo "DONE: $*"; else echo "refused: $*"; fi; }
try touch "$SCHEDULER_PROJECT/new"
try touch "$SCHEDULER_PROJECT/.omc/scheduler/config.json"
try sh -c 'echo x >> "$SCHEDULER_PROJECT/.git/hooks/pre-commit"'
try git config core.hooksPath /evil
try git config --global core.hooksPath /evil
try git branch evil main
try git update-ref refs/heads/main HEAD~0
try touch "$HOME/evil"
try touch "$HOME/.claude/evil"
try touch /usr/evil /etc/evil
try touch /var/tmp/evil
try sh -c 'echo x > .git'
try sh -c 'echo x > "$(git rev-parse --git-dir)/commondir"'
try mv .git moved
try ls "$SCHEDULER_HOME/trust.json"
try test -S "$SCHEDULER_HOME/runner.sock"
try sh -c 'ls /run/*.sock /run/docker* /run/user'
try sh -c 'echo x >> "$SCHEDULER_PROJECT/.omc/scheduler/logs/execution-history.jsonl"'
try mount -o remount,rw /
try sh -c 'unshare -rm mount -o remount,rw,bind / /'
try kill -0 "$SUPERVISOR"
"""


def test_what_a_run_must_not_touch_it_cannot(own: Rig) -> None:
    """E17, F22: nor what it must not see."""
    outside = os.getpid()
    (own.home / ".claude").mkdir()
    own.enable(boxed("sly", FORBIDDEN.replace('"$SUPERVISOR"', str(outside)) + "echo end > made"))
    own.start()
    before = fingerprint(own.project)
    record = own.run_to_end("sly")
    said = Path(places.task_log(str(own.project), "sly")).read_text()
    assert "DONE" not in said and said.count("refused: ") == FORBIDDEN.count("\ntry "), said
    assert record["status"] == "success", record
    assert changed(before, fingerprint(own.project)) == set()
    assert not (own.home / "evil").exists() and os.listdir(own.home / ".claude") == []


@pytest.mark.parametrize("end", ["true", "echo work > made", "echo work > made; exit 1"])
def test_a_branch_of_its_own_that_stands_for_another_does_not_have_us_delete_that(own: Rig, end: str) -> None:
    """F22: its own branch a run may write, so it can make it another name of the user's."""
    stand_in = 'echo "ref: refs/heads/main" > "$(git rev-parse --git-common-dir)/$(git symbolic-ref HEAD)"'
    own.enable(boxed("sly", f"{stand_in}; {end}"))
    own.start()
    before = fingerprint(own.project)
    record = own.run_to_end("sly")
    assert record["status"] == "failure", record
    assert changed(before, fingerprint(own.project)) == set() and branches(own.project) == []
    if "made" in end:
        assert discarded_tree(own.project, record)["made"][1] == b"work\n"
    nothing_left(own)


def test_a_pipe_in_place_of_the_trace_does_not_hold_the_run_up(own: Rig) -> None:
    """The run can write there: what is there is read when it has ended, past all limits of time."""
    own.enable(boxed("sly", 'echo work > made; mkfifo "${GIT_TRACE2_EVENT%/*}/a"'))
    own.start()
    record = own.run_to_end("sly")
    assert (record["status"], record.get("notes")) == ("success", None), record
    nothing_left(own)


def test_the_task_names_what_else_it_may_write_to(own: Rig) -> None:
    cache = own.home / "cache"
    cache.mkdir()
    own.enable(
        boxed("named", "echo x > ~/cache/new; touch ~/other || echo kept out", sandboxWrite=["~/cache"]),
        boxed("absent", "true", sandboxWrite=["/nowhere/at/all"]),
        boxed("greedy", f"echo x > {own.project}/new; echo x > {own.project}/.git/hooks/x; "
                        f"echo x > {own.project}/.omc/scheduler/rules.md; git config alias.x y; true",
              sandboxWrite=[str(own.project)]),
    )  # fmt: skip
    own.start()
    assert own.run_to_end("named")["status"] == "success" and (cache / "new").read_text() == "x\n"
    absent = own.run_to_end("absent")
    assert (absent["status"], absent["reason"]) == ("failure", "sandbox-missing"), absent
    assert "sandboxWrite names /nowhere/at/all, which is not there" in absent["error"]
    before = fingerprint(own.project)
    own.run_to_end("greedy")
    assert changed(before, fingerprint(own.project)) <= {"files", "status"} and (own.project / "new").exists()
    assert not (own.project / ".omc/scheduler/rules.md").exists()


def test_a_run_in_the_main_checkout_changes_that_and_not_what_decides(own: Rig) -> None:
    script = "echo new > made; git add made; git commit -qm own; echo evil >> .omc/scheduler/config.json; "
    own.enable(boxed("here", script + "git config alias.x y; test ! -w ~/.gitconfig", worktree={"enabled": False}))
    config = Path(places.config_file(str(own.project))).read_bytes()
    own.start()
    record = own.run_to_end("here")
    assert (record["status"], record["isolated"], record["sandbox"]) == ("success", False, "bwrap"), record
    assert git("show", "HEAD:made", cwd=own.project) == "new"
    assert Path(places.config_file(str(own.project))).read_bytes() == config
    assert "alias" not in (own.project / ".git/config").read_text()


def test_hooks_and_filters_that_a_run_left_stay_in_the_sandbox(own: Rig) -> None:
    """F27: our own commit runs the user's hooks, and those may call what the run has written."""
    (own.project / "hooks").mkdir()
    (own.project / "hooks/pre-commit").write_text("#!/bin/sh\nexit 0\n")
    (own.project / "hooks/pre-commit").chmod(0o755)
    git("add", "-A", cwd=own.project)
    git("commit", "-qm", "hooks", cwd=own.project)
    git("config", "core.hooksPath", "hooks", cwd=own.project)
    out = own.home / "escaped"
    nested = f"git init -q inner; cd inner; git config core.fsmonitor 'touch {out}.monitor'; echo x > x; git add x; "
    nested += "git -c user.name=x -c user.email=x commit -qm x; cd ..; git add inner 2>&1"
    script = f"printf '#!/bin/sh\\ntouch {out}.hook; touch ran\\n' > hooks/pre-commit; echo work > made; {nested}; true"
    own.enable(boxed("sly", script), boxed("bad", f"{script}; exit 1"))
    own.start()
    for task in ("sly", "bad"):
        record = own.run_to_end(task)
        assert record["status"] == "failure" or (record["status"], task) == ("success", "sly"), record
        assert not list(own.home.glob("escaped*")), record


def test_work_of_a_failed_run_is_saved(own: Rig) -> None:
    own.enable(boxed("bad", "echo one > a; git add a; git commit -qm a; echo two > b; exit 3"))
    own.start()
    record = own.run_to_end("bad")
    assert (record["status"], record["reason"], record["exitCode"]) == ("failure", "exit-code", 3), record
    tree = discarded_tree(own.project, record)
    assert (tree["a"][1], tree["b"][1]) == (b"one\n", b"two\n") and branches(own.project) == []
    nothing_left(own)


def test_nobody_of_its_tree_is_left_at_the_end_at_a_limit_and_on_cancel(own: Rig) -> None:
    """E1: also daemons, which live in the same process namespace."""
    tree = "(setsid sleep 987654 &); (trap '' TERM; sleep 987654 & wait) & "
    own.enable(
        boxed("leaves", tree + "echo work > made"),
        boxed("slow", tree + "trap 'echo farewell; exit 0' TERM; sleep 987654 & wait", timeout=2),
        boxed("long", tree + f"touch {own.home}/go 2>/dev/null; echo at work; sleep 987654"),
    )
    own.start()
    assert own.run_to_end("leaves")["status"] == "success"
    slow = own.run_to_end("slow")
    assert (slow["status"], "farewell" in slow["output"]) == ("timeout", True), slow
    run_id = own.run("long")
    wait_until(lambda: "at work" in log(own, "long"))
    own.ask("cancel", runId=run_id)
    assert own.record(run_id)["reason"] == "cancelled"
    assert wait_until(lambda: not sleepers())


def sleepers() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"sleep\x00987654" in entry.read_bytes():
                found.append(entry.parent.name)
        except OSError:
            continue
    return found


def log(own: Rig, task: str) -> str:
    file = Path(places.task_log(str(own.project), task))
    return file.read_text() if file.exists() else ""


def test_a_precheck_says_idle_and_a_broken_sandbox_does_not(own: Rig, tmp_path: Path) -> None:
    """bubblewrap itself ends with 1 where it cannot work: that is no answer of the task's."""
    own.enable(boxed("idle", "true", precheck="exit 1"))
    own.start()
    assert own.run_to_end("idle")["reason"] == "precheck-idle"
    own.stop()
    broken = tmp_path / "broken/bwrap"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    own.env["PATH"] = f"{broken.parent}:{own.env['PATH']}"
    second = own.repository(tmp_path / "second")
    own.enable(boxed("idle", "touch ran", precheck="exit 1"), project=second)
    own.start()
    record = own.run_to_end("idle", second)
    assert (record["status"], record["reason"]) == ("failure", "sandbox-missing"), record
    assert record["error"] == (
        "the task asks for a sandbox: bwrap does not work here: No permissions to create new namespace"
    )


def test_without_bubblewrap_nothing_is_started_and_enable_and_check_say_so(own: Rig, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "sh", "env", "touch"):
        (tools / name).symlink_to(str(shutil.which(name)))
    own.env["PATH"] = str(tools)
    cli = Command(own.project, own.env)
    cli("add", "Box", "--id", "box", "--every", "4h", "--shell", "touch ran", "--sandbox", "bwrap")
    checked = cli("check").out
    assert "warning: " in checked and "tasks[0].execution.sandbox: no `bwrap` on the PATH" in checked
    said = cli("enable", "--yes", "--no-start").out
    assert "fail  sandbox: no `bwrap` on the PATH: install bubblewrap" in said
    assert "bubblewrap: it can read your files and use the network, and write to its worktree, git's objects" in said
    own.start()
    record = own.run_to_end("box")
    assert (record["status"], record["reason"]) == ("failure", "sandbox-missing"), record
    assert "there is no `bwrap`" in record["error"] and not list(tmp_path.rglob("ran"))
    nothing_left(own)


def test_a_client_works_and_its_changes_are_noted(own: Rig, tmp_path: Path) -> None:
    """A stand-in for the client, over a wait for a usage limit: the user's folder is as it was."""
    puppet = Puppet(own.home / "puppet")
    mine = own.home / ".claude"
    for name in ("settings.json", ".credentials.json", "projects/old/s.jsonl", "todos/a"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("mine")
    job = shell_task("job", "", execution={"type": "claude", "command": "do it", "sandbox": "bwrap",
                                           "sandboxWrite": [str(own.home / "puppet")]})  # fmt: skip
    puppet.plays(limited(2), act(files={"made": "new\n"}))
    own.enable(job, client=str(puppet.path))
    own.start()
    record = own.run_to_end("job")
    assert (record["status"], record["sandbox"]) == ("success", "bwrap"), record
    assert branch_tree(own.project, record)["made"][1] == b"new\n"
    assert len(puppet.calls) == 2 and any(word.startswith("--resume=") for word in puppet.calls[1]["argv"])
    assert (mine / "settings.json").read_text() == "mine"
    assert sorted(path.name for path in mine.iterdir()) == [".credentials.json", "projects", "settings.json", "todos"]


AS_NOBODY = """
try() { if "$@" 2>/dev/null; then echo "DONE: $*"; else echo "refused: $*"; fi; }
try sh -c 'echo work > made && git add made && git -c user.name=n -c user.email=e commit -qm own'
try touch /tmp/new
try touch "$ROOT/evil"
try touch "$ROOT/.git/hooks/evil"
try git config alias.x y
try git update-ref refs/heads/main HEAD
try touch "$HOME/evil"
try sh -c 'unshare -rm mount -o remount,rw,bind / / && touch "$HOME/evil"'
"""


def test_as_a_user_without_roots_rights(tmp_path: Path) -> None:
    """In a user namespace, as everybody but root has it; all that is refused is the user's own."""
    root, place, home = repos.make(tmp_path / "root"), tmp_path / "place", tmp_path / "home"
    tree = repos.create(root, place)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "SCHEDULER_HOME": str(place / "state"), "ROOT": str(root)}
    where = Paths(env)
    home.mkdir()
    os.makedirs(where.state)
    scratch = place / "state/runs/run"
    scratch.mkdir(parents=True)
    room = sandbox.Room(tree.project, where, scratch, env, tree)
    argv = sandbox.enter(room)
    open_to_nobody(tmp_path, root, place, home)
    safe = {"GIT_CONFIG_GLOBAL": "/dev/null", **sandbox.environment(room)}
    done = subprocess.run(
        [*BECOME_NOBODY, *argv, "sh", "-c", AS_NOBODY], env={**env, **safe}, capture_output=True, text=True, cwd="/"
    )
    if "new namespace" in done.stderr:
        pytest.skip(f"another user may not have a sandbox here: {done.stderr.strip()}")
    said = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in said] == ["DONE"] * 2 + ["refused"] * 6, done
    subprocess.run(["chown", "-R", "0:0", root], check=True)  # git reads only what is one's own
    assert repos.git("show", f"{tree.branch}:made", cwd=root) == "work" and not (home / "evil").exists()
