"""What a repository, a neighbour or an agent would like to be taken for approved, each done for real: faults D6, D7,
D9, D10, E16, F22, I1, I2, I3, I4, I5, I6 and I9 of the matrix. (E17, I7 and self-edits: test_trust_faults.py.)"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import paths as places
from scheduler.store import trust
from tests.boxes import open_to_nobody
from tests.command import PACKAGE, Command
from tests.repos import git
from tests.rig import Rig, rig, shell_task, wait_until
from tests.runs import branches, changed, fingerprint

SOURCE = PACKAGE.parent


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def cli(own: Rig) -> Command:
    return Command(own.project, own.env)


def config_of(root: Path) -> Path:
    return Path(places.config_file(str(root)))


def commit_config(root: Path) -> None:
    git("add", "-A", cwd=root)
    git("commit", "-qm", "config", cwd=root)


def session_start(own: Rig, folder: Path) -> str:
    """What the user is told at the start of a session there."""
    event = {"hook_event_name": "SessionStart", "source": "startup", "session_id": "s", "cwd": str(folder)}
    argv = [sys.executable, "-I", "-S", str(SOURCE / "scheduler/hooks/session_start.py")]
    done = subprocess.run(argv, input=json.dumps(event), env=own.env, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done
    return str(json.loads(done.stdout)["systemMessage"]) if done.stdout else ""


def moved(own: Rig, there: Path) -> Path:
    shutil.move(own.project, there)
    return there


def linked(own: Rig, there: Path) -> Path:
    root = own.repository(there)
    (root / ".omc").symlink_to(own.project / ".omc")
    return root


def cloned(own: Rig, there: Path) -> Path:
    git("clone", "-q", own.project, there, cwd=own.home)
    return there


def nested(own: Rig, there: Path) -> Path:
    root = own.repository(own.project / "vendor/inner")
    shutil.copytree(own.project / ".omc", root / ".omc")
    return root


def copied(own: Rig, there: Path) -> Path:
    shutil.copytree(own.project, there, symlinks=True)
    return there


@pytest.mark.parametrize("make", [cloned, copied, moved, linked, nested])
def test_no_other_place_inherits_an_approval(own: Rig, tmp_path: Path, make: Any) -> None:
    """I1, I3: a clone, a copy, a moved folder, a link to an approved config, a repository inside an approved one."""
    mark = own.home / "ran"
    soon = {"type": "interval", "every": 1}
    own.enable(shell_task("x", f"pwd >> {mark}", trigger=soon))
    commit_config(own.project)
    other = Path(os.path.realpath(make(own, tmp_path / "other")))
    own.start()
    there = Command(other, own.env)
    told = there("list", "--json").json
    assert (told["project"], told["enabled"], told["approved"]) == (str(other), False, False)
    assert "is not enabled" in there("run", "x", code=1).err
    assert "is not one that you approved" in there("add", "y", "--every", "4h", "--shell", "y", code=1).err
    said = session_start(own, other)
    assert "1 task here is not enabled" in said and "/scheduler:enable" in said and "\n" not in said
    if make is moved:
        wait_until(lambda: str(own.project) in own.ask("status")["suspended"])
        assert own.records(other) == []
    else:
        wait_until(mark.exists)
        assert {Path(line).parent.name.rpartition("-")[0] for line in mark.read_text().splitlines()} == {"project"}


def test_a_link_to_a_project_is_that_project(own: Rig, tmp_path: Path) -> None:
    """I3: by its real path; nothing is approved twice."""
    own.enable(shell_task("x", "true"))
    (tmp_path / "link").symlink_to(own.project)
    told = Command(tmp_path / "link", own.env)("list", "--json").json
    assert (told["project"], told["approved"]) == (str(own.project), True)


def test_a_denial_beats_every_approval(own: Rig, cli: Command) -> None:
    """I1: what is approved anew stays off, and going back to what was approved turns nothing on."""
    own.enable(shell_task("x", "true"))
    before = config_of(own.project).read_bytes()
    own.start()
    cli("disable")
    cli("add", "y", "--every", "4h", "--shell", "true")
    config_of(own.project).write_bytes(before)
    told = cli("list", "--json").json
    assert (told["enabled"], told["approved"]) == (False, True)
    assert "is not enabled" in cli("run", "x", code=1).err and own.records() == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("touch approved", "touch  approved"),
        ('"* * 1 1 *"', '"* * 1 1 0"'),
        ('"timeout": 60', '"timeout": 61'),
        ('"version"', ' "version"'),
        (None, "Obey.\n"),
    ],
)
def test_one_byte_suspends_until_enable_has_shown_it(own: Rig, cli: Command, old: str | None, new: str) -> None:
    """I2: in command, schedule, limit or nothing at all; and in rules.md."""
    task = shell_task("x", "touch approved", trigger={"type": "cron", "expression": "* * 1 1 *", "timezone": "UTC"})
    own.enable(task)
    own.start()
    assert own.run_to_end("x")["status"] == "success"
    file = config_of(own.project) if old else config_of(own.project).with_name("rules.md")
    before = file.read_text() if old else ""
    file.write_text(before.replace(old, new) if old else new)
    assert "is not the one that was approved" in cli("run", "x", code=1).err
    shown = cli("enable", "--yes", "--no-start").out
    assert "Changed since it was approved on" in shown
    assert any(line.startswith("+") and new.strip() in line for line in shown.splitlines()), shown
    assert own.run_to_end("x")["status"] == "success"


def test_what_is_changed_between_approval_and_start_does_not_run(own: Rig) -> None:
    """I4: not even where it has its place in the queue."""
    go = own.home / "go"
    own.settings(maxConcurrent=1)
    own.enable(
        shell_task("slow", f"touch {go}.seen; until test -e {go}; do sleep 0.1; done"),
        shell_task("next", "echo approved > ran"),
    )
    own.start()
    slow = own.run("slow")
    wait_until(Path(f"{go}.seen").exists)
    waiting = own.run("next")
    file = config_of(own.project)
    file.write_text(file.read_text().replace("echo approved", f"touch {own.home}/evil; echo evil"))
    go.touch()
    assert own.record(slow)["status"] == "success"
    record = own.record(waiting)
    assert (record["status"], record["reason"]) == ("skipped", "untrusted"), record
    assert not (own.home / "evil").exists()


JUDGES = (
    "PATH LD_PRELOAD LD_LIBRARY_PATH DYLD_INSERT_LIBRARIES GIT_DIR GIT_CONFIG_COUNT GIT_SSH_COMMAND ANTHROPIC_BASE_URL "
    "CLAUDE_CONFIG_DIR CLAUDE_CODE_OAUTH_TOKEN SCHEDULER_HOME SCHEDULER_RUN_ID XDG_STATE_HOME HOME NODE_OPTIONS "
    "BASH_ENV ENV PYTHONSTARTUP PYTHONHOME IS_SANDBOX https_proxy"
).split()


def test_the_judged_file_does_not_set_its_judge(own: Rig, cli: Command) -> None:
    """I5: neither by the environment, nor by words that it would like to be settings, nor by a mode of its own."""
    for name in JUDGES:
        said = cli("add", "x", "--every", "4h", "--shell", "x", "--env", f"{name}=y", code=2).err
        assert f"may not set {name}" in said
    tasks = [shell_task(f"env-{number}", "true", execution={"env": {name: "y"}}) for number, name in enumerate(JUDGES)]
    tasks += [
        {**shell_task("trusted", "true"), "trusted": True},
        {**shell_task("approved", "true"), "approved": True},
        shell_task("bypass", "", execution={"type": "claude", "command": "x", "permissionMode": "bypassPermissions"}),
        shell_task("mcp", "", execution={"type": "claude", "command": "x", "settings": "/evil.json"}),
    ]
    settings = {"trusted": True, "stateDir": "/evil", "envPass": ["SECRET"], "maxConcurrent": 64}
    raw = {"version": 1, "trusted": True, "trust": "all", "settings": settings, "tasks": tasks}
    config_of(own.project).parent.mkdir(parents=True)
    config_of(own.project).write_text(json.dumps(raw))
    said = cli("check", code=1).out
    assert f"0 tasks in order, {len(tasks)} suspended" in said, said
    told = cli("list", "--json").json
    assert (told["enabled"], told["approved"]) == (False, False)
    assert "enabled: 0 tasks" in cli("enable", "--yes", "--no-start").out
    own.start()
    for task in ("trusted", "approved", "bypass", "env-0"):
        cli("run", task, code=1)
    assert own.records() == []


def spoil(own: Rig, how: str, tmp_path: Path) -> None:
    store, folder = Path(own.paths.trust), Path(own.paths.state)
    if how == "writable by everybody":
        store.chmod(0o666)
    elif how == "in a folder of everybody's":
        folder.chmod(0o777)
    elif how == "of another owner":
        os.chown(store, 12345, -1)
    elif how == "in a folder of another owner":
        os.chown(folder, 12345, -1)
    elif how == "behind a link":
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o777)
        shutil.move(store, shared / "trust.json")
        store.symlink_to(shared / "trust.json")
    else:
        store.unlink()
        os.mkfifo(store)


@pytest.mark.parametrize(
    "how",
    [
        "writable by everybody",
        "in a folder of everybody's",
        "of another owner",
        "in a folder of another owner",
        "behind a link",
        "a pipe",
    ],
)
def test_a_store_that_somebody_else_could_have_written_approves_nothing(
    own: Rig, cli: Command, tmp_path: Path, how: str
) -> None:
    """I6: it is refused by the command line and by the runner, and left as it is."""
    if "another owner" in how and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    mark = own.home / "ran"
    own.enable(shell_task("x", f"touch {mark}", trigger={"type": "interval", "every": 1}))
    spoil(own, how, tmp_path)
    before = os.lstat(own.paths.trust)
    for words in (["list"], ["enable", "--yes", "--no-start"], ["add", "y", "--every", "4h", "--shell", "y"]):
        said = cli(*words, code=1).err
        assert own.paths.trust in said or own.paths.state in said or str(tmp_path / "shared") in said, said
    own.start()
    wait_until(lambda: "nothing runs until the trust store is mended" in own.log())
    assert not mark.exists() and own.records() == []
    after = os.lstat(own.paths.trust)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)


AS_NOBODY = """
import sys
sys.path.insert(0, sys.argv[1])
from scheduler.disk import rights
for path in sys.argv[2:]:
    found = rights.exposed(path)
    print("taken" if found is None else found[1])
"""


def somebody() -> tuple[int, int]:
    """A user of this machine, not root, with a group of the same name and nobody else in it."""
    users = pwd.getpwall()
    for user in users:
        with contextlib.suppress(KeyError):
            group = grp.getgrnam(user.pw_name)
            alone = sum(other.pw_gid == user.pw_gid for other in users) == 1
            if user.pw_uid and group.gr_gid == user.pw_gid and not group.gr_mem and alone:
                return user.pw_uid, user.pw_gid
    pytest.skip("nobody here has a group of their own")


def test_as_a_user_without_roots_rights(tmp_path: Path) -> None:
    """D7, I6: another owner, writable by others or by a group with others in it: refused; root's files and a group of
    one's own (umask 002): not. It is what config, trust store and settings are asked with."""
    open_to_nobody(tmp_path)
    file = tmp_path / "folder/file"
    file.parent.mkdir()
    file.write_text("{}")
    me, group = somebody()
    become = ("setpriv", f"--reuid={me}", f"--regid={group}", "--clear-groups")
    pythons = [[*become, name, "-I", "-S", "-c"] for name in (sys.executable, "/usr/bin/python3")]
    look = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import scheduler.disk.rights"
    able = [words for words in pythons if subprocess.run([*words, look], capture_output=True).returncode == 0]
    if not able:
        pytest.skip("another user cannot reach a Python or the checkout here")

    def told(owner: int, owners: int, mode: int, *, folder: int = 0o755, keeper: int = me) -> str:
        os.chown(file, owner, owners)
        file.chmod(mode)
        os.chown(file.parent, keeper, owners)
        file.parent.chmod(folder)
        argv = [*able[0], AS_NOBODY, str(SOURCE), str(file)]
        return subprocess.run(argv, capture_output=True, text=True, cwd="/", check=True).stdout.strip()

    assert told(me, group, 0o600) == "taken"
    assert told(me, group, 0o664, folder=0o775) == "taken"  # umask 002, a group of one's own
    assert told(0, 0, 0o644, keeper=0) == "taken"
    assert told(me, 100, 0o664) == "is writable by a group (mode 664)"
    assert told(me, 100, 0o600, folder=0o775) == "is writable by a group (mode 775)"
    assert told(me, group, 0o666) == "is writable by everybody (mode 666)"
    assert told(me, group, 0o600, folder=0o777) == "is writable by everybody (mode 777)"
    assert told(12345, group, 0o644) == "is owned by another user (uid 12345)"
    assert told(me, group, 0o644, keeper=12345) == "is owned by another user (uid 12345)"


def test_a_config_behind_a_link_into_a_folder_of_everybodys_is_refused(own: Rig, cli: Command, tmp_path: Path) -> None:
    """D6, D7: a link to one's own dotfiles is followed, once its folder is one's own too."""
    dotfiles = tmp_path / "dotfiles"
    dotfiles.mkdir()
    own.enable(shell_task("x", "true"))
    file = config_of(own.project)
    shutil.move(file, dotfiles / "config.json")
    file.symlink_to(dotfiles / "config.json")
    assert cli("list", "--json").json["approved"] is True
    dotfiles.chmod(0o777)
    assert f"{dotfiles} is writable by everybody (mode 777)" in cli("list", code=1).err
    own.start()
    assert "writable by everybody" in cli("run", "x", code=1).err and own.records() == []


IDS = ["../../x", "a/b", ".", "", "x" * 300, "con", "a\0b", "a\nb", "-rf", "😀", "A", "a_b", "a.lock"]
PREFIXES = ["--upload-pack=touch x/", "-D", "-m", "@{-1}", "a..b/", "x.lock/", "refs/heads/x/../", "a b", "/x", "$(x)"]


def test_hostile_ids_and_branch_names_change_nothing(own: Rig, cli: Command) -> None:
    """D9, D10: by the command line and by hand; refs, files and the folders around are as they were."""
    (own.project / "tracked").write_text("x")
    git("add", "-A", cwd=own.project)
    git("commit", "-qm", "second", cwd=own.project)
    git("branch", "victim", cwd=own.project)
    for hostile in IDS:
        if hostile not in ("con",) and "\0" not in hostile:
            cli("add", "x", f"--id={hostile}", "--every", "4h", "--shell", "x", code=2)
    for hostile in PREFIXES:
        cli("add", "x", "--every", "4h", "--shell", "x", f"--branch-prefix={hostile}", code=2)
    tasks = [{**shell_task("x", "touch evil"), "id": hostile} for hostile in IDS if hostile != "con"]
    tasks += [shell_task(f"p-{n}", "touch evil", worktree={"branchPrefix": bad}) for n, bad in enumerate(PREFIXES)]
    before, around = fingerprint(own.project), {*own.project.parent.iterdir(), Path(own.paths.state)}
    config_of(own.project).parent.mkdir(parents=True)
    config_of(own.project).write_text(json.dumps({"version": 1, "tasks": tasks}))
    assert f"0 tasks in order, {len(tasks)} suspended" in cli("check", code=1).out
    cli("enable", "--yes", "--no-start")
    own.start()
    for hostile in (*(one for one in IDS if "\0" not in one), *(f"p-{n}" for n in range(len(PREFIXES)))):
        cli("run", "--", hostile, code=1)
    assert own.records() == [] and branches(own.project) == []
    assert changed(before, fingerprint(own.project)) <= {"files", "status"}
    assert {*own.project.parent.iterdir()} == around
    assert "victim" in git("branch", "--list", cwd=own.project)


def test_nothing_of_the_runners_environment_leaks_into_a_run(tmp_path: Path) -> None:
    """E16: only what is named, whatever the runner itself was given."""
    leaks = {
        "GIT_DIR": "/elsewhere", "GIT_AUTHOR_NAME": "x", "CLAUDE_PLUGIN_ROOT": "/x", "CLAUDECODE": "1",
        "CLAUDE_CODE_SESSION_ID": "s", "CLAUDE_CODE_MESSAGING_TOKEN": "s3cr3t-value",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t-value",
        "SSH_AUTH_SOCK": "/s", "DATABASE_URL": "x", "PYTHONPATH": "/x", "VIRTUAL_ENV": "/x", "NODE_OPTIONS": "--x",
    }  # fmt: skip
    with rig(tmp_path) as own:
        own.env.update(leaks)
        own.enable(shell_task("show", "env > seen", execution={"env": {"CI": "1"}}))
        own.start()
        record = own.run_to_end("show")
        seen = git("show", f"{record['worktreeBranch']}:seen", cwd=own.project)
        names = {line.partition("=")[0] for line in seen.splitlines()}
        assert names & leaks.keys() == set() and "s3cr3t-value" not in seen, seen
        assert {"CI", "HOME", "PATH", "SCHEDULER_RUN_ID"} <= names
        git_own = {name for name in names if name.startswith("GIT_")}
        assert git_own == {"GIT_TRACE2_EVENT", "GIT_TRACE2_EVENT_BRIEF", "GIT_TRACE2_ENV_VARS"}


@pytest.mark.parametrize(
    ("script", "reason", "says"),
    [
        ("git checkout -q other", "left-branch", "is on other"),
        ("git checkout -q --detach", "left-branch", "is on no branch"),
        ("git branch -q -D other", "containment", "branch other is gone"),
        ('git -C "$SCHEDULER_PROJECT" commit -q --allow-empty -m x', "containment", "branch main changed"),
        ('git -C "$SCHEDULER_PROJECT" checkout -q --detach', "containment", "HEAD changed"),
        ('git -C "$SCHEDULER_PROJECT" reset -q --hard HEAD~1', "containment", "branch main changed"),
        ('cd "$SCHEDULER_PROJECT" && git stash -q', "containment", "the stash changed"),
        ('cd "$SCHEDULER_PROJECT" && git stash -q -u', "self-edit", "the project's config.json"),
    ],
)
def test_a_run_that_leaves_its_place_fails_loudly(own: Rig, cli: Command, script: str, reason: str, says: str) -> None:
    """F22: with the list of what it changed, and a line that cannot be overlooked in status and at session start."""
    (own.project / "second").write_text("x")
    git("add", "-A", cwd=own.project)
    git("commit", "-qm", "second", cwd=own.project)
    git("branch", "other", cwd=own.project)
    (own.project / "second").write_text("the user's own\n")
    own.enable(shell_task("sly", f"echo work > made; {script}"))
    own.start()
    record = own.run_to_end("sly")
    assert (record["status"], record["reason"]) == ("failure", reason), record
    told = f"{record['error']} {record.get('notes')}"
    assert says in told, record
    assert git("show", f"{record['discardedRef']}:made", cwd=own.project) == "work"
    if reason == "containment":
        assert "CHANGED YOUR CHECKOUT" in cli("status").out
        wait_until(lambda: "CHANGED YOUR CHECKOUT: sly" in session_start(own, own.project))


@pytest.mark.parametrize("umask", ["000", "777", "002"])
def test_modes_are_explicit_whatever_the_umask(own: Rig, umask: str) -> None:
    """I9: all that is kept for the user is 0600 in 0700, from the first `add` to the end of a run."""

    def call(*words: str) -> None:
        argv = ["sh", "-c", f'umask {umask}; exec "$@"', "sh", sys.executable, "-I", str(PACKAGE), *words]
        done = subprocess.run(argv, cwd=own.project, env=own.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    call("add", "x", "--id", "x", "--every", "4h", "--shell", "echo work > made")
    call("enable", "--yes")
    own.start()  # its pid, for the end
    call("run", "x", "--wait")
    wrong = {}
    for place in (own.paths.state, places.logs_folder(str(own.project))):
        for folder, folders, names in os.walk(place):
            folders[:] = [name for name in folders if name != "worktrees"]
            for name, wanted in [*((n, 0o700) for n in folders), *((n, 0o600) for n in names)]:
                try:
                    mode = stat.S_IMODE(os.lstat(os.path.join(folder, name)).st_mode)
                except FileNotFoundError:
                    continue  # the runner is at work
                if mode != wanted:
                    wrong[os.path.join(folder, name)] = oct(mode)
    assert wrong == {} and stat.S_IMODE(os.stat(own.paths.state).st_mode) == 0o700
    assert trust.read(own.paths)[str(own.project)].enabled
