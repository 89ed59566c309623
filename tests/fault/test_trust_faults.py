"""Trust under attack: faults I1 to I9, D6, D7, D9, D10, E16, E17, F22 and F27 of the matrix, each done for real."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pexpect
import pytest

from scheduler.cli.main import VERBS
from scheduler.cli.main import cli as cli_group
from scheduler.disk import glance
from scheduler.disk import paths as places
from scheduler.execution import process
from scheduler.hooks import greeting
from scheduler.store import trust
from tests.command import PACKAGE, Command
from tests.repos import git
from tests.rig import Rig, rig, shell_task, wait_until
from tests.runs import branches
from tests.samples import private_key, some


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def cli(own: Rig) -> Command:
    return Command(own.project, own.env)


# Self-edit: what is attributed to a run


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("git config core.hooksPath /nowhere", "git's setting core.hookspath"),
        ("git config --global core.hooksPath /nowhere", "git's setting core.hookspath"),
        ("cd /; git -C \"$SCHEDULER_PROJECT\" config alias.x '!evil'", "git's setting alias.x"),
        ('git init -q --template="$HOME/template" .', "the git hook pre-commit"),
        ('git -C "$SCHEDULER_PROJECT" checkout -q other', "the project's config.json"),
        ('git -C "$SCHEDULER_PROJECT" checkout -q other; exit 1', "the project's config.json"),
        ('mkdir "${GIT_TRACE2_EVENT%/*}/a"; git config core.hooksPath /nowhere', "git's setting core.hookspath"),
    ],
)
def test_a_run_that_changes_what_decides_fails_and_suspends_its_project(
    own: Rig, cli: Command, how: str, named: str
) -> None:
    """E17, I5, F22: by git, whichever way the run ends."""
    hook = own.home / "template/hooks/pre-commit"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    own.enable(shell_task("sly", f"echo work > made; {how}"), shell_task("good", "true"))
    commit_config(own)
    own.start()
    record = own.run_to_end("sly")
    assert (record["status"], record["reason"]) == ("failure", "self-edit"), record
    assert named in record["error"] and branches(own.project) == [], record
    assert "the project is suspended: 'enable' shows what changed" in record["notes"]
    assert git("show", f"{record['discardedRef']}:made", cwd=own.project) == "work"
    if how.endswith("exit 1"):
        assert any("it ended as failure (exit-code)" in note for note in record["notes"]), record
    assert_loud_until_looked_at(own, cli, record, named)


def test_h4_h5_what_a_self_edit_changed_is_kept_without_its_secrets(own: Rig, cli: Command) -> None:
    """A private key of several lines, and a token where a long line is cut."""
    key, token = private_key(), "ghp_" + some(36)
    hook = own.home / "template/hooks/pre-commit"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\necho '{key}'\n{'#' * 280}{token}\necho the end\n")
    hook.chmod(0o755)
    own.enable(shell_task("sly", 'git init -q --template="$HOME/template" .'))
    own.start()
    assert own.run_to_end("sly")["reason"] == "self-edit"
    suspension = trust.read(own.paths)[str(own.project)].suspension
    assert suspension is not None
    kept = "\n".join(suspension.difference)
    assert "+echo the end" in kept and "[REDACTED:private-key]" in kept and max(map(len, suspension.difference)) <= 300
    for said in (kept, cli("enable", input="n\n", code=None).out):
        assert token[:12] not in said and not any(line in said for line in key.splitlines()[1:-1])


def commit_config(own: Rig) -> None:
    """The config is committed, and branch `other` has another one."""
    git("add", "-A", cwd=own.project)
    git("commit", "-q", "-m", "config", cwd=own.project)
    git("checkout", "-q", "-b", "other", cwd=own.project)
    file = Path(places.config_file(str(own.project)))
    file.write_text(file.read_text() + "\n")
    git("commit", "-q", "-a", "-m", "other", cwd=own.project)
    git("checkout", "-q", "main", cwd=own.project)


def assert_loud_until_looked_at(own: Rig, cli: Command, record: dict[str, Any], named: str) -> None:
    root, run8 = str(own.project), record["id"][:8]
    said = f"SELF-EDIT, run {run8} of sly changed {named}"
    # A config that was seen to change before the run had ended is told of first.
    entry = wait_until(lambda: suspended_entry(own, said))
    assert not entry["trusted"]
    shown = greeting.state(entry, "alive", 0)
    assert shown.startswith(f"Scheduler: suspended, {said}"[:60]) and "/scheduler:enable" in shown
    assert f"SUSPENDED: {said}" in cli("status").out
    assert "SELF-EDIT" in cli("run", "good", code=1).err
    assert "SELF-EDIT" in cli("add", "x", "--every", "4h", "--shell", "x", code=1).err
    assert trust.read(own.paths)[root].suspension is not None
    looked = cli("enable", "--yes", "--no-start").out
    assert f"run {run8} of sly changed" in looked and named in looked
    assert trust.read(own.paths)[root].suspension is None
    assert "SELF-EDIT" not in cli("status").out.partition("needs you")[0]


def suspended_entry(own: Rig, said: str = "") -> dict[str, Any] | None:
    found = (glance.read(own.paths.glance) or {}).get("projects", {}).get(str(own.project))
    return found if found and (found["suspended"] or "").startswith(said) and found["suspended"] else None


def test_what_is_the_runs_own_affair_suspends_nothing(own: Rig) -> None:
    """Settings by which git starts nothing, a look at others, a config on the run's own branch."""
    quiet = "git config user.name Agent; git config --get core.hooksPath; git branch -q --set-upstream-to=main"
    commits = "mkdir -p .omc/scheduler .claude && echo '{}' > .omc/scheduler/config.json && echo x > .claude/hooks"
    own.enable(shell_task("fair", f"{quiet}; {commits}; git add -Af && git commit -qm own"))
    own.start()
    record = own.run_to_end("fair")
    assert (record["status"], record.get("reason"), record.get("notes")) == ("success", None, None), record
    assert trust.read(own.paths)[str(own.project)].suspension is None


def test_what_somebody_else_changes_meanwhile_is_a_note(own: Rig) -> None:
    """No tool call and no git command of the run accounts for it; the config alone is suspended, by its bytes."""
    go, root = own.home / "go", own.project
    own.enable(shell_task("slow", f"touch {go}.seen; until test -e {go}; do sleep 0.1; done; echo work > made"))
    own.start()
    run_id = own.run("slow")
    wait_until(Path(f"{go}.seen").exists)
    file = Path(places.config_file(str(root)))
    file.write_text(file.read_text() + "\n")
    (root / ".git/hooks/post-commit").write_text("#!/bin/sh\n")
    git("config", "core.editor", "mine", cwd=root)
    go.touch()
    record = own.record(run_id)
    assert record["status"] == "success", record
    meanwhile = "changed meanwhile, it cannot be told by whom: "
    assert sorted(note.removeprefix(meanwhile) for note in record["notes"] if note.startswith(meanwhile)) == [
        f"git's setting core.editor in {root}/.git/config",
        "the git hook post-commit",
        "the project's config.json",
    ]
    assert trust.read(own.paths)[str(root)].suspension is None
    assert wait_until(lambda: suspended_entry(own))["suspended"].startswith("its config is not the one")


TOOL = """
import json, os, sys
project, run = os.environ["SCHEDULER_PROJECT"], os.environ["SCHEDULER_RUN_ID"]
event = {"tool_name": "Write", "tool_use_id": "t1", "cwd": os.getcwd(), "session_id": "s",
         "tool_input": {"file_path": sys.argv[1], "content": sys.argv[2]}, "tool_response": {"type": "update"}}
open(sys.argv[1], "w").write(sys.argv[2])
import subprocess
subprocess.run([sys.executable, "-I", "-S", sys.argv[3]], input=json.dumps(event).encode(), check=True)
"""


def tool_call(own: Rig, path: object, content: str) -> str:
    """A shell line that does what a Write of the client does: the file, then the hook."""
    script = own.home / "tool.py"
    script.write_text(TOOL)
    hook = Path(places.__file__).parents[1] / "hooks/post_tool_use.py"
    return f"{sys.executable} -I {script} '{path}' '{content}' {hook}"


@pytest.mark.parametrize(
    ("place", "label"),
    [
        ("{project}/.omc/scheduler/rules.md", "the project's rules.md"),
        ("{project}/.claude/settings.local.json", "the project's .claude/settings.local.json"),
        ("{project}/.claude/hooks/start.sh", "the project's hook of the client start.sh"),
        ("{project}/.git/hooks/pre-push", "the git hook pre-push"),
        ("{claude}/settings.json", "your own .claude/settings.json"),
        ("{state}/settings.json", "the scheduler's settings"),
    ],
)
@pytest.mark.parametrize("isolated", [True, False])
def test_a_tool_call_on_what_decides_is_a_self_edit(own: Rig, place: str, label: str, isolated: bool) -> None:
    """E17, I5, I7: also where what was written is put back, and in a run in the main checkout."""
    path = Path(place.format(project=own.project, claude=own.home / ".claude", state=own.paths.state))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    command = f"{tool_call(own, path, 'evil')}; printf %s {{}} > {path}"
    own.enable(shell_task("sly", command, worktree={"enabled": isolated}))
    own.start()
    record = own.run_to_end("sly")
    assert (record["status"], record["reason"]) == ("failure", "self-edit"), record
    assert record["error"] == f"the run changed what decides over it: {label}"
    suspension = trust.read(own.paths)[str(own.project)].suspension
    assert suspension is not None and suspension.changes == (label,)


@pytest.mark.parametrize("back", [True, False])
def test_a_tool_call_on_the_off_switch_is_a_self_edit(own: Rig, back: bool) -> None:
    """E17: a run has no business to switch anything off, or on again."""
    command = tool_call(own, own.paths.off_switch, "evil") + (f"; rm {own.paths.off_switch}" if back else "")
    own.enable(shell_task("sly", command))
    own.start()
    record = own.run_to_end("sly")
    assert record["error"] == "the run changed what decides over it: the off switch", record


def test_who_writes_the_approvals_suspends_every_project_whose_entry_that_changed(
    own: Rig, cli: Command, tmp_path: Path
) -> None:
    """I5, I6: an approval that a run gave itself counts for nothing; only what enable shows now does."""
    other = own.repository(tmp_path / "other")
    own.enable(shell_task("x", "true"), project=other)
    own.enable(shell_task("sly", "SCRIPT"))
    forged = own.home / "forge.py"
    forged.write_text(
        "import json, sys\nraw = json.load(open(sys.argv[1]))\n"
        f"raw['projects'][{str(other)!r}]['path'] = '/evil'\nprint(json.dumps(raw))\n"
    )
    store = own.paths.trust
    line = tool_call(own, store, "@").replace("'@'", f'"$({sys.executable} {forged} {store})"')
    own.enable(shell_task("sly", line))
    own.start()
    record = own.run_to_end("sly")
    assert (record["status"], record["reason"]) == ("failure", "self-edit"), record
    known = trust.read(own.paths)
    assert known[str(own.project)].suspension is not None and known[str(other)].suspension is not None
    cli("enable", "--yes", "--no-start")
    known = trust.read(own.paths)
    assert len(known[str(own.project)].approvals) == 1 and known[str(other)].suspension is not None


def test_a_run_that_ends_its_runner_after_a_self_edit_is_known_for_it(own: Rig) -> None:
    """E17: what its tool calls wrote is on file."""
    hook = own.project / ".git/hooks/pre-push"
    runner = own.start()
    started = process.start_time(runner)
    own.enable(shell_task("sly", f"{tool_call(own, hook, 'evil')}; kill -9 {runner}; sleep 30"))
    run_id = own.run("sly")
    wait_until(lambda: not process.is_alive(runner, started or 0))
    own.start()
    record = own.record(run_id)
    assert (record["status"], record["reason"]) == ("failure", "self-edit"), record
    assert "the git hook pre-push" in record["error"] and "crashed" in record["notes"][0]
    assert trust.read(own.paths)[str(own.project)].suspension is not None


def test_approvals_that_came_with_a_repository_count_for_nothing(own: Rig, tmp_path: Path) -> None:
    """I5: a clone with a state folder in it, taken for the user's own because CLAUDE_CONFIG_DIR names it."""
    ran, inside = tmp_path / "ran", own.project / ".claude"
    own.env = {**own.env, "CLAUDE_CONFIG_DIR": str(inside)}
    own.env.pop("SCHEDULER_HOME")
    own.paths = places.Paths(own.env)
    (own.project / ".git").rename(tmp_path / "git")
    own.enable(shell_task("evil", f"touch {ran}", trigger={"type": "interval", "every": "1s"}))
    (tmp_path / "git").rename(own.project / ".git")
    own.start()
    wait_until(lambda: "nothing runs until the trust store is mended: the approvals are in the repository" in own.log())
    cli = Command(own.project, own.env)
    for words in (("enable", "--yes"), ("add", "x", "--every", "4h", "--shell", "true"), ("run", "evil")):
        assert f"the approvals are in the repository {own.project}" in cli(*words, code=1).err
    own.stop()
    assert not ran.exists() and own.records() == []


def test_a_look_that_comes_too_early_clears_nothing(own: Rig, cli: Command) -> None:
    """I4: what enable clears is what it showed."""
    own.enable(shell_task("a", "true"))
    terminal = pexpect.spawn(
        sys.executable, ["-I", str(PACKAGE), "enable", "--no-start"], cwd=own.project, env=own.env, timeout=60
    )
    file = Path(places.config_file(str(own.project)))
    terminal.expect("enabled: 1 task")  # approved as it is: no question
    file.write_text(file.read_text() + "\n")
    terminal = pexpect.spawn(
        sys.executable, ["-I", str(PACKAGE), "enable", "--no-start"], cwd=own.project, env=own.env, timeout=60
    )
    terminal.expect(r"\[y/N\]")
    suspension = trust.Suspension("0" * 8, "sly", "2026-12-01T00:00:00+00:00", ("the git hook x",))
    trust.suspend(own.paths, [str(own.project)], suspension)
    terminal.sendline("y")
    terminal.expect("a run changed something while you looked")
    terminal.expect(pexpect.EOF)
    assert trust.read(own.paths)[str(own.project)].suspension == suspension


# Inside a run (E17, I7)


ALTERS = sorted(name for name, verb in VERBS.items() if verb.alters)
PARTLY = {
    "doctor": ("--fix",),
    "service": ("install", "uninstall"),
}  # words with which they alter
LOOKS = "list show next check result diff history stats logs changes status completion answer schema".split()


def test_every_verb_is_known_to_alter_or_to_look() -> None:
    """A new verb fails here until somebody has said which it is: `alters` in the table of cli/main.py, where all that
    it does is refused inside a run; else PARTLY or LOOKS above."""
    assert sorted(VERBS) == sorted([*ALTERS, *PARTLY, *LOOKS])


def words_of(command: click.Command) -> list[str]:
    return ["x" for parameter in command.params if isinstance(parameter, click.Argument) and parameter.required]


def test_no_verb_that_alters_works_inside_a_run_however_the_run_hides(own: Rig) -> None:
    """Plain, without its mark, with an empty environment, from a daemon; as words that hide behind --help."""
    group = click.Context(cli_group)
    calls = [" ".join([name, *words_of(cli_group.get_command(group, name) or click.Command(""))]) for name in ALTERS]
    calls += [f"{name} {word}" for name, words in PARTLY.items() for word in words]
    calls += ["add x --every 4h --shell --help", "enable --yes --project -h"]
    scheduler, out = f"{sys.executable} -I {PACKAGE}", own.home / "said"
    keep = f'PATH="$PATH" HOME="{own.home}" SCHEDULER_HOME="{own.paths.state}"'
    lines = [f"{scheduler} {call} >> {out} 2>&1; echo code $? >> {out}" for call in calls]
    lines += [f"env -u SCHEDULER_RUN_ID {scheduler} enable --yes >> {out} 2>&1; echo code $? >> {out}"]
    lines += [f"env -i {keep} {scheduler} disable >> {out} 2>&1; echo code $? >> {out}"]
    daemon = f"env -i {keep} setsid sh -c '{scheduler} stop >> {out} 2>&1; echo code $? >> {out}; touch {out}.end'"
    lines += [f"({daemon} &) ; until test -e {out}.end; do sleep 0.1; done"]
    own.enable(shell_task("sly", "\n".join(lines), execution={"timeout": 300}))
    own.start()
    before = Path(own.paths.trust).read_bytes()
    record = own.run_to_end("sly")
    said = out.read_text()
    assert said.count("is refused inside a scheduled run") == len(calls) + 3, said
    assert said.count("code 1\n") == len(calls) + 3, said
    assert Path(own.paths.trust).read_bytes() == before
    (note,) = [note for note in record["notes"] if note.startswith("it called verbs that are refused inside a run: ")]
    assert {"add", "enable", "stop"} <= set(note.rpartition(": ")[2].split(", ")), note
