"""The hooks through the real launcher: what they print, write and start. Their faults are in tests/fault."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import glance, paths
from scheduler.store.config import read_source
from tests.hooks import BASE, ROOT, RUN, SESSION, Bed

IN_RUN = {"SCHEDULER_RUN_ID": RUN, "SCHEDULER_TASK_ID": "nightly"}


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def lines(reply: Any) -> list[str]:
    found = str(reply["systemMessage"]).splitlines()
    assert len(found) <= 6
    return found


# --- where the hooks speak at all


@pytest.mark.parametrize("hook", ["session_start", "post_tool_use", "session_end"])
def test_silent_and_without_a_trace_where_there_are_no_tasks(bed: Bed, hook: str) -> None:
    plain = bed.repository(bed.folder / "plain")
    before = bed.files()
    for folder in (plain, bed.folder):
        event = bed.event("any", cwd=folder, source="startup", reason="other", tool_name="Write")
        assert bed.call(hook, event, cwd=folder) is None
    assert bed.files() == before


def test_who_has_just_installed_it_is_told_once_what_to_do(bed: Bed) -> None:
    elsewhere = bed.repository(bed.folder / "elsewhere")
    data = bed.folder / "it's my data"
    env = {"CLAUDE_PLUGIN_DATA": str(data), "CLAUDE_CODE_ENTRYPOINT": "cli"}

    def start(**more: str) -> Any:
        return bed.start(cwd=elsewhere, env={**env, **more})

    assert start() is None  # it is set up
    Path(bed.paths.runtime).unlink()
    assert start() is None  # the client has made no folder for it
    data.mkdir()
    before = bed.files()
    assert start(CLAUDE_CODE_ENTRYPOINT="sdk-cli") is None  # with -p nobody would see it
    assert bed.end(cwd=elsewhere, env=env) is None and bed.files() == before
    said = start()["systemMessage"]
    assert said.startswith("Scheduler: installed, nothing is scheduled yet.") and "\n" not in said
    assert start() is None
    assert bed.files() - before == {"it's my data/welcomed"}


def test_a_folder_above_the_repository_never_counts(bed: Bed) -> None:
    (bed.folder / ".omc" / "scheduler").mkdir(parents=True)
    (bed.folder / ".omc" / "scheduler" / "config.json").write_text('{"tasks": [{"id": "a"}]}')
    plain = bed.repository(bed.folder / "plain")
    assert bed.call("session_start", bed.event("SessionStart", cwd=plain, source="startup"), cwd=plain) is None


def test_the_project_is_found_from_below_from_a_worktree_and_from_where_the_session_began(bed: Bed) -> None:
    below = bed.project / "a" / "b c ü"
    below.mkdir(parents=True)
    linked = bed.folder / "linked 'tree'"
    bed.git("worktree", "add", "-q", "-b", "linked", str(linked), cwd=bed.project)
    away = bed.folder / "away"
    away.mkdir()
    symlink = bed.folder / "symlink"
    symlink.symlink_to(below)
    for folder, env in [
        (below, {}),
        (linked, {}),
        (symlink, {"PWD": str(symlink)}),
        (away, {"CLAUDE_PROJECT_DIR": str(below)}),
    ]:
        event = bed.event("SessionStart", cwd=folder, source="startup")
        assert "not enabled" in lines(bed.call("session_start", event, cwd=folder, env=env))[0]


@pytest.mark.parametrize("shape", ["bare", "loose gitdir", "stolen gitdir", "no gitdir", "endless gitdir"])
def test_silent_in_a_repository_without_a_main_tree_or_with_a_made_up_one(bed: Bed, shape: str) -> None:
    folder = bed.folder / "odd"
    if shape == "bare":
        bed.git("clone", "-q", "--bare", str(bed.project), str(bed.folder / "bare.git"), cwd=bed.folder)
        bed.git("worktree", "add", "-q", str(folder), "main", cwd=bed.folder / "bare.git")
    else:
        bed.git("worktree", "add", "-q", str(bed.folder / "linked"), cwd=bed.project)
        admin = bed.project / ".git" / "worktrees" / "linked"
        folder.mkdir()
        text = {
            "loose gitdir": "gitdir: /nowhere/at/all\n",
            "stolen gitdir": f"gitdir: {admin}\n",  # the repository does not know this folder
            "no gitdir": "\0\xff nothing",
            "endless gitdir": "gitdir: " + "x" * 100_000,
        }[shape]
        (folder / ".git").write_bytes(text.encode("latin-1"))
    (folder / ".omc" / "scheduler").mkdir(parents=True)
    (folder / ".omc" / "scheduler" / "config.json").write_text('{"tasks": [{"id": "a"}]}')
    assert bed.call("session_start", bed.event("SessionStart", cwd=folder, source="startup"), cwd=folder) is None


def test_a_submodule_is_a_project_of_its_own(bed: Bed) -> None:
    other = bed.repository(bed.folder / "other")
    bed.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "sub", cwd=bed.project)
    sub = bed.project / "sub"
    assert bed.call("session_start", bed.event("SessionStart", cwd=sub, source="startup"), cwd=sub) is None
    (sub / ".omc" / "scheduler").mkdir(parents=True)
    (sub / ".omc" / "scheduler" / "config.json").write_text('{"tasks": [{"id": "a"}]}')
    reply = bed.call("session_start", bed.event("SessionStart", cwd=sub, source="startup"), cwd=sub)
    assert lines(reply)[0].startswith("Scheduler: 1 task here is not enabled")


# --- PostToolUse


def test_a_change_is_one_line_without_content(bed: Bed) -> None:
    secret = "do not keep this\nline two\n"
    assert bed.call("post_tool_use", bed.write_event(bed.project / "src" / "a ü.py", secret)) is None
    (line,) = bed.changes()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", line.pop("time"))
    assert line == {
        "session": SESSION,
        "tool": "Write",
        "toolUseId": "toolu_01",
        "path": "src/a ü.py",
        "kind": "create",
        "bytesBefore": 0,
        "bytesAfter": len(secret),
        "linesAdded": 2,
        "linesRemoved": 0,
    }
    log = Path(paths.file_changes(str(bed.project)))
    assert log.stat().st_mode & 0o777 == 0o600
    assert (log.parent / ".gitignore").read_text() == "*\n"
    assert bed.log() == ""


@pytest.mark.parametrize("version", ["2.1.197", "2.1.330"])
@pytest.mark.parametrize(
    ("name", "path", "content", "expected"),
    [
        ("Write", "new.txt", "hello\n", {"kind": "create", "bytesBefore": 0, "linesAdded": 1, "linesRemoved": 0}),
        ("Edit", "old.txt", "two\n", {"kind": "update", "bytesBefore": 4, "linesAdded": 1, "linesRemoved": 1}),
        ("NotebookEdit", "book.ipynb", None, {"kind": "update", "linesAdded": 19, "linesRemoved": 1}),
        ("Write-in-subagent", "sub.txt", "s\n", {"kind": "create", "bytesBefore": 0, "linesAdded": 1}),
    ],
)
def test_what_the_real_client_sends(
    bed: Bed, version: str, name: str, path: str, content: str | None, expected: dict[str, Any]
) -> None:
    recorded = (ROOT / "tests" / "golden" / "hooks" / version / f"{name}.json").read_text()
    event = json.loads(recorded.replace("/home/person/worktree", str(bed.project)))
    written = event["tool_response"]["updated_file"] if content is None else content
    (bed.project / path).write_text(written)
    assert bed.call("post_tool_use", event) is None
    (line,) = bed.changes()
    if content is None:
        expected = {**expected, "bytesBefore": len(event["tool_response"]["original_file"])}
    assert {key: line[key] for key in expected} == expected
    assert (line["path"], line["tool"], line["bytesAfter"]) == (path, name.partition("-")[0], len(written))


def test_in_a_worktree_the_path_is_the_one_below_it_and_the_line_goes_to_the_project(bed: Bed) -> None:
    linked = Path(os.path.realpath(bed.folder)) / "linked"
    bed.git("worktree", "add", "-q", str(linked), cwd=bed.project)
    for path in (linked / "a.txt", bed.project / "b.txt", bed.folder / "c.txt"):
        bed.call("post_tool_use", bed.write_event(path, cwd=linked), cwd=linked)
    assert [(x["path"], x.get("in"), x.get("outside")) for x in bed.changes()] == [
        ("a.txt", "worktree", None),
        ("b.txt", "main", None),
        (os.path.realpath(bed.folder / "c.txt"), None, True),
    ]
    assert not (linked / ".omc").exists()


def test_in_a_run_the_line_names_it_and_main_is_told_from_the_worktree_wherever_the_agent_went(bed: Bed) -> None:
    linked = Path(os.path.realpath(bed.folder)) / "linked"
    bed.git("worktree", "add", "-q", str(linked), cwd=bed.project)
    env = {**IN_RUN, "SCHEDULER_PROJECT": str(bed.project), "CLAUDE_PROJECT_DIR": str(linked)}
    nested = bed.repository(linked / "nested")
    for cwd in (linked, bed.folder, bed.project, nested):
        for path in (linked / "a.txt", bed.project / "b.txt"):
            bed.call("post_tool_use", bed.write_event(path, cwd=cwd), cwd=cwd, env=env)
    found = bed.changes()
    assert {(x["run"], x["task"]) for x in found} == {(RUN, "nightly")}
    assert [(x["path"], x["in"]) for x in found] == [("a.txt", "worktree"), ("b.txt", "main")] * 4


def test_a_run_without_a_worktree_writes_in_main(bed: Bed) -> None:
    env = {**IN_RUN, "SCHEDULER_PROJECT": str(bed.project)}
    bed.call("post_tool_use", bed.write_event(bed.project / "b.txt"), env=env)
    (line,) = bed.changes()
    assert (line["path"], line["in"]) == ("b.txt", "main")


def test_a_path_through_a_link_is_the_place_it_leads_to(bed: Bed) -> None:
    shared = bed.folder / "shared"
    shared.mkdir()
    (bed.project / "docs").symlink_to(shared)
    bed.call("post_tool_use", bed.write_event(bed.project / "docs" / "a.md"))
    (line,) = bed.changes()
    assert (line["path"], line["outside"]) == (os.path.realpath(shared / "a.md"), True)


def test_an_event_past_the_limit_keeps_what_is_known(bed: Bed) -> None:
    content = "x" * 99 + "\n"
    event = bed.write_event(bed.project / "big.txt", content * 30_000)
    event["tool_response"]["content"] = content * 30_000
    began = time.monotonic()
    bed.call("post_tool_use", event)
    assert time.monotonic() - began < 5
    (line,) = bed.changes()
    assert (line["path"], line["tool"], line["bytesAfter"]) == ("big.txt", "Write", 3_000_000)
    assert "toolUseId" not in line


def test_other_tools_are_not_noted(bed: Bed) -> None:
    bed.call("post_tool_use", bed.write_event(bed.project / "a", tool_name="Bash"))
    assert bed.changes() == []


def test_sixteen_sessions_at_once_lose_nothing(bed: Bed) -> None:
    """B9."""
    event = bed.folder / "event.json"
    event.write_text(json.dumps(bed.write_event(bed.project / "a.txt")))
    argv = ["sh", str(ROOT / "scripts" / "hook"), "post_tool_use"]
    for _ in range(4):
        running = []
        for _ in range(16):
            with event.open() as file:
                running.append(subprocess.Popen(argv, stdin=file, cwd=bed.project, env=bed.env))
        assert {process.wait() for process in running} == {0}
    assert len(bed.changes()) == 64
    assert bed.log() == ""


def test_the_log_of_changes_is_rotated(bed: Bed) -> None:
    log = Path(paths.file_changes(str(bed.project)))
    log.parent.mkdir(parents=True)
    log.write_bytes(b"{}\n" * 3_333_333)
    bed.call("post_tool_use", bed.write_event(bed.project / "a.txt"))
    assert len(bed.changes()) == 1
    assert [path.stat().st_size for path in log.parent.glob("file-changes.jsonl.*")] == [9_999_999]


# --- SessionStart


def test_tasks_of_a_project_that_is_not_enabled_are_offered(bed: Bed) -> None:
    said = "Scheduler: 2 tasks here are not enabled. /scheduler:enable shows what would run and turns it on."
    assert bed.start() == {"systemMessage": said}
    Path(bed.paths.runtime).unlink()
    assert lines(bed.start()) == [
        "Scheduler: 2 tasks here are not enabled. /scheduler:enable sets it up, shows what would run and turns it on."
    ]
    assert (bed.start("clear"), bed.start("compact")) == (None, None)
    bed.write_config({"id": "off", "enabled": False})
    assert bed.start() is None
    assert not bed.state.exists()


def test_an_enabled_project_says_what_is_on_and_next(bed: Bed) -> None:
    at = time.time() + 30 * 60
    bed.enable(next=[{"task": "nightly", "at": at}], running=1)
    with bed.runner():
        reply = bed.start()
    clock = time.strftime("%H:%M", time.localtime(at))
    assert re.fullmatch(
        rf"Scheduler: on, 2 tasks active, next nightly at (\w\w\w )?{clock} \(in 30 min\), 1 running now",
        reply["systemMessage"],
    )
    told = reply["hookSpecificOutput"]
    assert told["hookEventName"] == "SessionStart"
    assert told["additionalContext"].startswith("[claude-scheduler] This project has 2 active scheduled tasks. Next: ")
    assert len(told["additionalContext"].split()) <= 60


def test_what_came_due_while_no_runner_was_there_is_said(bed: Bed) -> None:
    bed.enable(due=[time.time() - 3 * 3600, time.time() - 2 * 3600, time.time() + 3600])
    (bed.home / "package" / "__main__.py").write_text("")  # what the hook starts does not stay
    said = lines(bed.start())
    assert re.fullmatch(r"2 due, 0 ran since .*: no runner was at work\. /scheduler:status", said[1])
    assert "systemMessage" not in bed.start("compact")


RECENT = [
    {"run": "0a1b2c30", "task": "nightly", "status": "success", "reason": None, "at": 1.0, "costUsd": 0.5},
    {"run": "0a1b2c31", "task": "weekly", "status": "timeout", "reason": "stalled", "at": 2.0, "costUsd": None},
]
OPEN = [
    {"kind": "failed", "run": "0a1b2c31", "task": "weekly", "at": 2.0},
    {"kind": "review", "run": "0a1b2c30", "task": "nightly", "at": 1.0},
]


def test_what_ran_is_told_once_and_what_needs_a_person_until_it_is_done(bed: Bed) -> None:
    bed.enable(recent=RECENT, open=OPEN)
    needs = [
        "Failed: weekly 0a1b2c31. Why: /scheduler:logs weekly. Keep its work: /scheduler:adopt 0a1b2c31",
        "To review: 1 branch, nightly 0a1b2c30. /scheduler:status",
    ]
    on = "Scheduler: on, 2 tasks active"
    with bed.runner():
        # With -p nobody reads it, so it does not count as told.
        for env in ({"CLAUDE_CODE_ENTRYPOINT": "sdk-cli"}, {}):
            assert lines(bed.start(env=env)) == [on, "Lately: 1 run ok (nightly), 1 failed (weekly), $0.50", *needs]
        assert lines(bed.start("resume")) == [on, *needs]
        more = [*RECENT, {**RECENT[0], "run": "0a1b2c32", "at": 3.0}]
        bed.enable(recent=more, open=OPEN)
        assert re.fullmatch(r"Since (\w\w\w )?\d\d:\d\d: 1 run ok \(nightly\), \$0\.50", lines(bed.start())[1])
        assert lines(bed.start()) == [on, *needs]


def test_more_runs_than_the_glance_holds_are_no_exact_count(bed: Bed) -> None:
    many = [{**RECENT[0], "run": f"{number:08x}", "costUsd": None} for number in range(50)]
    bed.enable(recent=many)
    with bed.runner():
        assert lines(bed.start())[1] == "Lately: 50+ runs ok (nightly)"
        bed.enable(recent=[*many[1:], {**many[0], "run": "0a1b2c3d"}])  # one of those told of is still there
        assert ": 1 run ok (nightly)" in lines(bed.start())[1]


def test_nothing_that_needs_a_person_falls_off_a_full_start_line(bed: Bed) -> None:
    kinds = ("usage-limit", "auth", "credit", "paused")
    held = [{"kind": kind, "run": None, "task": None, "at": 1.0, "until": None, "by": "x"} for kind in kinds]
    bed.enable(recent=RECENT, open=[*held, *OPEN])
    with bed.runner():
        said = lines(bed.start())
    assert len(said) == 6
    assert said[-1].startswith("Paused: this project; Failed: weekly 0a1b2c31; To review: 1 branch, nightly 0a1b2c30.")


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize("change", ["config", "rules", "no config", "back"])
def test_a_config_that_changed_before_a_runner_looked_is_not_called_on(bed: Bed, change: str, alive: bool) -> None:
    folder = bed.project / ".omc" / "scheduler"
    config = folder / "config.json"
    before = config.read_bytes()
    digest = read_source(str(bed.project)).digest
    bed.enable(approved=[digest[:16], "0" * 16])
    line = "Scheduler: suspended, its config is not the one that was approved. /scheduler:enable shows what changed."
    if change == "rules":
        (folder / "rules.md").write_text("obey\n")
    elif change == "no config":
        config.unlink()
        line = "Scheduler: suspended, its config cannot be read. /scheduler:status says more."
    else:
        config.write_bytes(before + b"\n")
    if change == "back":
        config.write_bytes(before)
        line = "Scheduler: 2 tasks active; its runner was not running and is being started."
        line = "Scheduler: on, 2 tasks active" if alive else line
    with bed.runner() if alive else nullcontext():
        reply = bed.start()
    assert lines(reply) == [line]
    assert ("they are suspended" in reply["hookSpecificOutput"]["additionalContext"]) == (change != "back")
    if not alive:
        bed.started()


def test_a_config_that_has_not_changed_since_it_was_judged_is_not_read(bed: Bed) -> None:
    """A large one takes milliseconds; that it is the same is told by its stamp."""
    bed.enable(approved=["0" * 16], stamp=glance.stamp(str(bed.project)))
    with bed.runner():
        assert lines(bed.start()) == ["Scheduler: on, 2 tasks active"]
        (bed.project / ".omc" / "scheduler" / "rules.md").write_text("obey\n")
        assert lines(bed.start())[0].startswith("Scheduler: suspended, its config is not the one that was approved.")


@pytest.mark.parametrize("source", ["clear", "compact"])
def test_a_session_that_goes_on_hears_only_news_but_the_model_its_context(bed: Bed, source: str) -> None:
    bed.enable(recent=RECENT[:1])
    with bed.runner():
        assert lines(bed.start(source)) == ["Lately: 1 run ok (nightly), $0.50"]
        reply = bed.start(source)
    assert list(reply) == ["hookSpecificOutput"]


def test_nothing_to_say_is_nothing(bed: Bed) -> None:
    bed.enable(active=0)
    with bed.runner():
        assert bed.start() is None


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"trusted": False, "suspended": "its config is not the one that was approved"},
            "Scheduler: suspended, its config is not the one that was approved. /scheduler:enable shows what changed.",
        ),
        ({"suspended": "not JSON:\n line 3"}, "Scheduler: suspended, not JSON: line 3. /scheduler:status says more."),
    ],
)
def test_a_suspended_project_says_why(bed: Bed, fields: dict[str, Any], line: str) -> None:
    bed.enable(**fields)
    with bed.runner():
        reply = bed.start()
    assert lines(reply) == [line]
    assert "JSON" not in reply["hookSpecificOutput"]["additionalContext"]


def test_a_paused_project_says_so_though_no_task_is_active(bed: Bed) -> None:
    paused = {"kind": "paused", "run": None, "task": None, "at": 1.0, "until": None, "by": "sam", "scope": "project"}
    bed.enable(active=0, open=[paused])
    with bed.runner():
        assert lines(bed.start()) == [
            "Scheduler: paused, 0 tasks active",
            "Paused: this project. /scheduler:resume",
        ]


def test_the_off_switch_is_said_and_no_runner_is_started(bed: Bed) -> None:
    bed.enable(due=[time.time() - 3600], next=[{"task": "nightly", "at": time.time() + 60}])
    switch = Path(bed.paths.off_switch)
    switch.touch()
    reply = bed.start()
    first, late = lines(reply)
    clock = r"(\w\w\w )?\d\d:\d\d"
    off = rf"Scheduler: SWITCHED OFF since {clock}, nothing starts in any project: rm {switch}"
    assert re.fullmatch(off, first)
    assert re.fullmatch(r"1 due, 0 ran since .*: switched off\. /scheduler:status", late)
    context = reply["hookSpecificOutput"]["additionalContext"]
    assert "switched the scheduler off" in context and "Next:" not in context
    assert bed.end("other") is None  # nobody is told that a session would start it
    with bed.runner():
        assert lines(bed.start())[0] == first
    assert not (bed.state / "started.json").exists()
    switch.unlink()
    assert lines(bed.start())[0].endswith("its runner was not running and is being started.")
    bed.started()


def test_inside_a_run_start_and_end_are_silent(bed: Bed) -> None:
    bed.enable()
    assert (bed.start(env=IN_RUN), bed.end(env=IN_RUN)) == (None, None)
    assert not (bed.state / "runner.log").exists()


def test_a_runner_is_started_detached_and_without_the_session_around_it(bed: Bed) -> None:
    bed.enable()
    session = {
        "CLAUDECODE": "1",
        "CLAUDE_CODE_SESSION_ID": SESSION,
        "CLAUDE_CODE_CHILD_SESSION": "1",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "CLAUDE_CODE_MESSAGING_TOKEN": "t",
        "CLAUDE_ENV_FILE": "/x",
        "CLAUDE_EFFORT": "high",
        "CLAUDE_PID": "1",
        "CLAUDE_PROJECT_DIR": str(bed.project),
        "CLAUDE_PLUGIN_OPTION_X": "1",
        "AI_AGENT": "x",
    }
    kept = {"ANTHROPIC_API_KEY": "k", "CLAUDE_CONFIG_DIR": str(bed.home), "CLAUDE_CODE_USE_BEDROCK": "1"}
    first = lines(bed.start(env={**session, **kept}))
    assert first == ["Scheduler: 2 tasks active; its runner was not running and is being started."]
    told = bed.started()
    assert told["argv"][1:] == ["runner"]
    assert told["ppid"] != os.getpid()
    assert told["sid"] != os.getsid(0)
    assert told["fds"] == {"0": "/dev/null", "1": bed.paths.runner_log, "2": bed.paths.runner_log}
    assert {name for name in told["env"] if name.startswith(("CLAUDE", "AI_", "ANTHROPIC", "SCHEDULER"))} == {
        *kept,
        "SCHEDULER_HOME",
    }


@pytest.mark.parametrize(
    ("root", "data", "told"),
    [
        ("/p/plugins/cache/m/scheduler/0.1.0", "/p/plugins/data/scheduler-m", ("plugin", True)),
        ("/src/folder-marketplace", "/p/plugins/data/scheduler-m", ("plugin", False)),
        ("/src/here", "/p/plugins/data/scheduler-inline", (None, False)),
    ],
)
def test_a_runner_knows_the_installed_plugin_that_started_it(
    bed: Bed, root: str, data: str, told: tuple[str | None, bool]
) -> None:
    bed.enable()
    bed.start(env={"CLAUDE_PLUGIN_ROOT": root, "CLAUDE_PLUGIN_DATA": data})
    env = bed.started()["env"]
    assert env.get("SCHEDULER_STARTED_BY") == told[0]
    assert env.get("SCHEDULER_PLUGIN_DATA") == (data if told[0] else None)
    assert env.get("SCHEDULER_PLUGIN_ROOT") == (root if told[1] else None)


def test_a_runner_that_never_came_up_is_said_and_one_that_did_is_not(bed: Bed) -> None:
    bed.enable()
    (bed.home / "package" / "__main__.py").write_text("raise SystemExit('no')")
    bed.start()
    (file,) = (bed.state / "seen").iterdir()
    memory = json.loads(file.read_text())
    assert set(memory) == {"project", "shown", "woken"}
    glance.update(bed.paths.glance, None, None, now=memory["woken"] - 100)
    assert "is being started." in lines(bed.start())[0]  # only seconds ago
    file.write_text(json.dumps({**memory, "woken": memory["woken"] - 50}))
    assert lines(bed.start())[0] == (
        "Scheduler: 2 tasks active; its runner did not come up last time and is being started again: /scheduler:status."
    )
    file.write_text(json.dumps({**memory, "woken": memory["woken"] - 200}))
    assert "its runner was not running and is being started." in lines(bed.start())[0]


def test_a_set_up_that_is_gone_is_said(bed: Bed) -> None:
    bed.enable()
    Path(bed.paths.runtime).write_text(f"{BASE}\n/gone/python\n/gone/package\n0.1.0\n")
    assert lines(bed.start()) == [
        "Scheduler: 2 tasks active; its set-up is gone: /scheduler:status makes it again.",
    ]


@pytest.mark.parametrize(("set_up", "running"), [("0.0.9", "0.0.9"), ("0.1.0", "0.0.9"), ("0.0.9", "0.1.0")])
def test_a_newer_plugin_sets_itself_up_in_the_background_once_in_a_while(
    bed: Bed, tmp_path: Path, set_up: str, running: str
) -> None:
    plugin = tmp_path / "plugin"
    (plugin / "scripts").mkdir(parents=True)
    (plugin / "scheduler").symlink_to(ROOT / "scheduler")
    (plugin / "scripts" / "hook").symlink_to(ROOT / "scripts" / "hook")
    (plugin / "scripts" / "scheduler").write_text('echo "$1" >>"$SCHEDULER_HOME/asked"; echo said')
    bed.enable()
    bed.set_up(version=set_up)
    glance.update(bed.paths.glance, None, None, runner={"pid": 1, "version": running, "startedAt": 1})
    event = json.dumps(bed.event("SessionStart", source="startup")).encode()
    with bed.runner():
        for _ in range(2):
            done = subprocess.run(
                ["sh", str(plugin / "scripts" / "hook"), "session_start"],
                input=event,
                cwd=bed.project,
                env=bed.env,
                capture_output=True,
                check=True,
            )
            assert "Updating the scheduler to 0.1.0 in the background." in lines(json.loads(done.stdout))
        end = time.monotonic() + 10
        while not (bed.state / "asked").exists() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
        assert (bed.state / "asked").read_text() == "restart\n"
        assert bed.log() == "said\n"
        (memory,) = Path(bed.paths.seen).glob("*.json")
        told = json.loads(memory.read_text())
        memory.write_text(json.dumps({**told, "refreshed": told["refreshed"] - 200}))
        done = subprocess.run(done.args, input=event, cwd=bed.project, env=bed.env, capture_output=True, check=True)
        (said,) = [line for line in lines(json.loads(done.stdout)) if "update" in line]
    log = bed.paths.hooks_log
    assert (
        said == f"The update to 0.1.0 is not through: it waits for runs to end, or failed ({log}). It is tried again."
    )


# --- SessionEnd


def test_a_reminder_where_nobody_will_run_the_tasks_once_a_day_and_again_at_the_next_start(bed: Bed) -> None:
    said = "Scheduler: 2 tasks of project not enabled, so nothing runs. In Claude Code: /scheduler:enable"
    assert bed.end() == {"terminalSequence": f"\x1b]9;{said}\x07"}
    assert bed.end() is None
    bed.enable()
    with bed.runner():
        bed.start(env={"CLAUDE_CODE_ENTRYPOINT": "sdk-cli"})  # nobody sees what is said with -p
        assert re.fullmatch(r"When you left \(\d\d:\d\d\), 2 tasks had nobody to run them\.", lines(bed.start())[1])
        assert lines(bed.start()) == ["Scheduler: on, 2 tasks active"]


def test_a_reminder_where_the_runner_of_an_enabled_project_is_gone(bed: Bed) -> None:
    bed.enable(active=1)
    with bed.runner():
        assert bed.end() is None
    assert "1 task of project cannot run, its runner has stopped." in bed.end()["terminalSequence"]


def test_a_runner_that_is_just_being_started_has_not_stopped(bed: Bed) -> None:
    bed.enable(active=1)
    bed.start()
    bed.started()  # and ended
    assert bed.end() is None
    (file,) = Path(bed.paths.seen).glob("*.json")
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "woken": known["woken"] - 60}))
    assert "its runner has stopped." in bed.end()["terminalSequence"]


@pytest.mark.parametrize(
    ("reason", "env", "settings"),
    [
        ("clear", {}, {}),
        ("resume", {}, {}),
        ("other", {"CLAUDE_CODE_ENTRYPOINT": "sdk-cli"}, {}),
        ("other", {}, {"remind": False}),
    ],
)
def test_no_reminder_where_nobody_leaves_or_wants_one(
    bed: Bed, reason: str, env: dict[str, str], settings: dict[str, Any]
) -> None:
    bed.write_config({"id": "nightly"}, settings=settings)
    assert bed.end(reason, env=env) is None


# --- the rules for all of them

IMPORTED = {
    "scheduler",
    "scheduler.disk",
    "scheduler.disk.files",
    "scheduler.disk.paths",
    "scheduler.disk.tinyjson",
    "scheduler.hooks",
    "scheduler.hooks.place",
    "scheduler.hooks.wire",
}
TELLING = IMPORTED | {f"scheduler.hooks.{name}" for name in ("greeting", "seen", "tasks", "wake")}
TELLING |= {"scheduler.disk.glance", "scheduler.disk.switch"}
STANDARD = {
    "__future__",
    "_collections_abc",
    "_json",
    "_stat",
    "errno",
    "fcntl",
    "gc",
    "genericpath",
    "os",
    "posixpath",
}
STANDARD |= {"select", "stat", "time", "_socket", "_sha256", "_sha2"}


@pytest.mark.parametrize(
    ("hook", "allowed"),
    [
        ("post_tool_use", IMPORTED | {"scheduler.hooks.change"}),
        ("session_start", TELLING | {"scheduler.hooks.arrival", "scheduler.hooks.neglect"}),
        ("session_end", TELLING | {"scheduler.hooks.parting", "scheduler.hooks.terminal"}),
    ],
)
@pytest.mark.parametrize("alive", [True, False])
def test_a_hook_imports_nothing_but_this(bed: Bed, hook: str, allowed: set[str], alive: bool) -> None:
    bed.enable(recent=RECENT, open=OPEN, approved=[])
    event = bed.write_event(bed.project / "a.txt", source="startup", reason="other")
    script = ROOT / "scheduler" / "hooks" / f"{hook}.py"

    def imported(*words: str) -> set[str]:
        argv = [sys.executable, "-X", "importtime", "-I", "-S", *words]
        with bed.runner() if alive else nullcontext():
            done = subprocess.run(argv, input=json.dumps(event).encode(), env=bed.env, capture_output=True, check=True)
        return {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()[1:]}

    assert imported(str(script)) - imported("-c", "pass") - STANDARD == allowed
    if hook == "session_start" and not alive:
        bed.started()


@pytest.mark.parametrize("hook", ["post_tool_use", "session_start", "session_end"])
def test_the_file_that_the_client_starts_is_short(hook: str) -> None:
    assert len((ROOT / "scheduler" / "hooks" / f"{hook}.py").read_text().splitlines()) <= 30
    launcher = (ROOT / "scripts" / "hook").read_text().splitlines()
    assert len(launcher) <= 20
    assert os.access(ROOT / "scripts" / "hook", os.X_OK)
