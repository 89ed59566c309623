"""Whole runs of the real client: through a real runner, in real worktrees, against the stand-in for the API."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import paths as places
from scheduler.disk.paths import Paths
from scheduler.execution import session
from scheduler.execution.process import descendants
from tests.client import API_KEY, LOGGED_OUT, SUBSCRIPTION, client_environment
from tests.command import Command
from tests.repos import git
from tests.rig import Rig, rig, shell_task, wait_until
from tests.runs import branch_tree, branches, changed, discarded_tree, fingerprint, nothing_left
from tests.standin import StandIn, Turn, failure, silence, text, tool, usage_limit

PROMPT = "do the work"
SKIP = {"skipPermissions": True}


@pytest.fixture
def api() -> Iterator[StandIn]:
    with StandIn() as made:
        yield made


@pytest.fixture
def own(tmp_path: Path, api: StandIn, client: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        log_in(made, api, API_KEY)
        yield made


def log_in(own: Rig, api: StandIn, login: Mapping[str, str]) -> None:
    """Give the runner what the client needs to work offline; what a run's environment does not let through is named."""
    for name in (*API_KEY, *SUBSCRIPTION):
        own.env.pop(name, None)
    own.env.update(client_environment(own.home, api, login))
    own.settings(envPass=["IS_SANDBOX", "CLAUDE_CODE_MAX_RETRIES"])


def task(command: str = PROMPT, **fields: Any) -> dict[str, Any]:
    policy = fields.pop("policy", {})
    return shell_task("job", "", execution={"type": "claude", "command": command, **fields}, policy=policy)


def ran(
    own: Rig, api: StandIn, client: Path, turns: Sequence[Turn], job: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The record of one run whose client is given these turns; the main checkout is as it was."""
    api.play(turns)
    own.enable(job or task(), client=os.path.abspath(client))
    own.start()
    before = fingerprint(own.project)
    record = own.run_to_end("job")
    if record.get("reason") != "containment":
        assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)
    return record


def log_of(own: Rig, name: str = "job.log") -> str:
    return Path(places.logs_folder(str(own.project)), name).read_text()


def test_it_writes_and_edits_on_a_branch_of_its_own(own: Rig, api: StandIn, client: Path) -> None:
    answer = "Both files are in place.\n\n" + "A long closing answer. " * 200
    turns = [
        tool("Write", words="First a file.", file_path="new.txt", content="hello\n"),
        tool("Read", file_path="file.txt"),
        tool("Edit", file_path="file.txt", old_string="one", new_string="two"),
        text(answer),
    ]
    record = ran(own, api, client, turns, task(model="sonnet", maxTurns=9))

    assert (record["status"], record.get("reason"), record["exitCode"]) == ("success", None, 0), record
    tree = branch_tree(own.project, record)
    assert (tree["new.txt"][1], tree["file.txt"][1]) == (b"hello\n", b"two\n")
    assert (record["filesChanged"], record["insertions"], record["deletions"]) == (2, 2, 1)
    assert record["turns"] == 4 and record["costUsd"] > 0 and "sonnet" in record["model"]
    assert record["sessionId"] != record["id"]
    log = log_of(own)
    assert f"session {record['sessionId']}, {record['model']}, client " in log
    assert "] First a file.\n" in log and "] → Write new.txt\n" in log and "] = done, 4 turns" in log
    result = Path(places.result_file(str(own.project), record["id"]))
    assert result.read_text().rstrip("\n") == answer.rstrip("\n")
    assert len(record["output"]) <= 2048 and "= done, 4 turns" in record["output"]
    assert api.turns[0].prompt == PROMPT
    told = git("log", "-1", "--format=%B", record["commit"], cwd=own.project)
    assert told.startswith("job\n") and f"Run: {record['id']}" in told


def test_it_may_write_without_bypass_in_the_default_folders(tmp_path: Path, api: StandIn, client: Path) -> None:
    """A worktree in a place that the client takes for sensitive would fail this."""
    with rig(tmp_path) as own:
        del own.env["SCHEDULER_HOME"]
        own.paths = Paths(own.env)
        log_in(own, api, API_KEY)
        record = ran(own, api, client, [tool("Write", file_path="new.txt", content="hello\n"), text("Done.")])
        assert (record["status"], record.get("reason")) == ("success", None), record
        assert branch_tree(own.project, record)["new.txt"][1] == b"hello\n"
        state = own.home / ".local" / "state" / "claude-scheduler"
        assert Path(record["worktreePath"]).is_relative_to(state / "worktrees")
        assert (own.home / ".claude" / "logs" / "execution-history.jsonl").exists()
        changes = Path(places.file_changes(str(own.project))).read_text().splitlines()
        [change] = map(json.loads, changes)
        assert (change["run"], change["task"], change["path"]) == (record["id"], "job", "new.txt")
        assert (change["in"], change["session"]) == ("worktree", record["sessionId"])


def test_rules_come_before_the_prompt(own: Rig, api: StandIn, client: Path) -> None:
    rules = Path(places.rules_file(str(own.project)))
    rules.parent.mkdir(parents=True)
    rules.write_text("# Rules\n\nNever touch the changelog.\n")
    record = ran(own, api, client, [text("Understood.")])
    assert (record["status"], record["reason"]) == ("success", "no-changes")
    assert api.turns[0].prompt == f"# Rules\n\nNever touch the changelog.\n\n{PROMPT}"


@pytest.mark.parametrize("command", ["--help me with this", "#  remember\n\n" + "x" * 200_000])
def test_a_prompt_is_never_taken_for_anything_else(own: Rig, api: StandIn, client: Path, command: str) -> None:
    record = ran(own, api, client, [text("Done.")], task(command))
    assert (record["status"], record["reason"]) == ("success", "no-changes"), record
    assert api.turns[0].prompt == command


WRITE = tool("Write", file_path="made.txt", content="work\n")
ENDS: dict[str, tuple[list[Turn], dict[str, Any], Mapping[str, str], str]] = {
    "api error": ([WRITE, failure(500)], {}, API_KEY, "api-error"),
    "too many turns": ([WRITE, tool("Bash", command="true")], {**SKIP, "maxTurns": 2}, API_KEY, "max-turns"),
    "budget": ([WRITE, tool("Bash", command="true")], {**SKIP, "maxBudgetUsd": 0.0001}, API_KEY, "budget"),
    "denied tool": ([WRITE, tool("Bash", command="curl x.invalid"), text("No.")], {}, API_KEY, "denied-tools"),
    "logged out": ([text("never asked")], {}, LOGGED_OUT, "auth"),
}


@pytest.mark.parametrize("name", ENDS)
def test_each_bad_end_is_on_record_and_undone(own: Rig, api: StandIn, client: Path, name: str) -> None:
    """E11."""
    turns, fields, login, reason = ENDS[name]
    log_in(own, api, login)
    record = ran(own, api, client, turns, task(**fields))

    assert (record["status"], record["reason"]) == ("failure", reason), record
    assert record["error"] and "\n" not in record["error"]
    assert f"session {record['sessionId']}, " in log_of(own)
    assert branches(own.project) == []
    if name == "logged out":
        assert "log" in record["error"].lower() and api.turns == []
        assert "discardedRef" not in record
    elif name != "budget":  # which some clients look at before they do what they were told, and some after it
        assert discarded_tree(own.project, record)["made.txt"][1] == b"work\n"
    assert "resetsAt" not in record
    if name in ("too many turns", "budget"):
        assert record["turns"] >= 1 and record["costUsd"] > 0


def waits(own: Rig, run: str) -> dict[str, Any]:
    """The record of a run, once it waits for a usage limit to end."""
    found = wait_until(lambda: [r for r in own.records() if r["id"] == run and r.get("reason") == "usage-limit"])[0]
    assert found["status"] == "running"
    return found


@pytest.mark.parametrize("begun", [True, False], ids=["in the middle", "at once"])
@pytest.mark.parametrize("meanwhile", ["nothing", "the runner is killed", "the worktree goes"])
def test_a_usage_limit_is_waited_for_and_the_session_goes_on(
    own: Rig, api: StandIn, client: Path, begun: bool, meanwhile: str
) -> None:
    log_in(own, api, SUBSCRIPTION)
    ends = int(time.time()) + 6
    api.play([*([WRITE] if begun else []), usage_limit(ends)])
    own.enable(task(policy={"retries": 1}), client=os.path.abspath(client))
    pid = own.start()
    run = own.run("job")
    record = waits(own, run)
    assert datetime.fromisoformat(record["resetsAt"]).timestamp() == ends
    asked = len(api.turns)
    api.play([tool("Write", file_path="rest.txt", content="rest\n"), text("The rest is done.")])
    if meanwhile == "the runner is killed":
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        own.start()
    elif meanwhile == "the worktree goes":
        shutil.rmtree(record["worktreePath"])
    final = own.record(run)

    assert (final["status"], final.get("reason"), final["attempt"]) == ("success", None, 1), final
    assert datetime.fromisoformat(final["completedAt"]).timestamp() >= ends
    assert final["sessionId"] == record["sessionId"]
    tree = branch_tree(own.project, final)
    assert tree["rest.txt"][1] == b"rest\n"
    assert ("made.txt" in tree) is (begun and meanwhile != "the worktree goes")
    said = api.turns[asked].said
    assert PROMPT in said and "A usage limit stopped you" in said
    assert final["costUsd"] > 0 and len(own.task_records("job")) == 1
    nothing_left(own)


def test_after_a_login_claude_tasks_go_on_by_themselves(own: Rig, api: StandIn, client: Path) -> None:
    log_in(own, api, LOGGED_OUT)
    api.play([text("Done.")])
    job = {**task(), "trigger": {"type": "interval", "every": 1}}
    own.enable(job, client=os.path.abspath(client))
    own.start()
    waits = wait_until(
        lambda: [r for r in own.task_records("job") if r.get("reason") == "auth" and "skippedCount" in r]
    )
    assert waits[0]["status"] == "skipped" and api.turns == []
    login = {"accessToken": "sk-ant-oat01-stand-in", "refreshToken": "sk-ant-ort01-stand-in", "subscriptionType": "max",
             "expiresAt": int((time.time() + 86400) * 1000), "scopes": ["user:inference", "user:profile"]}  # fmt: skip
    file = own.home / ".claude" / ".credentials.json"  # which `/login` writes
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"claudeAiOauth": login}))
    wait_until(lambda: [r for r in own.task_records("job") if r["status"] == "success"])
    assert "the client is logged in again" in own.log()


def test_a_denied_tool_may_be_accepted(own: Rig, api: StandIn, client: Path) -> None:
    turns = [tool("Bash", command="curl x.invalid"), WRITE, text("Done without it.")]
    record = ran(own, api, client, turns, task(policy={"onDenied": "accept"}))
    assert (record["status"], record.get("reason")) == ("success", None), record
    assert branch_tree(own.project, record)["made.txt"][1] == b"work\n"
    assert "✗ Bash" in log_of(own)


def test_a_file_that_it_writes_into_the_main_checkout_fails_the_run(own: Rig, api: StandIn, client: Path) -> None:
    target = own.project / "folder" / "stray.txt"
    turns = [WRITE, tool("Write", file_path=str(target), content="stray\n"), text("Done.")]
    record = ran(own, api, client, turns, task(**SKIP))
    assert target.read_text() == "stray\n"
    assert (record["status"], record["reason"]) == ("failure", "containment"), record
    assert record["error"] == "the run changed the main checkout: file folder/stray.txt changed"
    assert discarded_tree(own.project, record)["made.txt"][1] == b"work\n"


def test_its_command_is_ended_with_it(own: Rig, api: StandIn, client: Path, tmp_path: Path) -> None:
    """Its shell has a session of its own, and outlives the client that is merely killed."""
    api.play([WRITE, tool("Bash", command=f"touch {tmp_path}/begun; sleep 600 & sleep 600"), text("Done.")])
    own.enable(task(**SKIP), client=os.path.abspath(client))
    pid = own.start()
    run = own.run("job")
    wait_until((tmp_path / "begun").exists)
    own.ask("cancel", runId=run)
    record = own.record(run)
    assert (record["status"], record["reason"]) == ("failure", "cancelled")
    assert record["costUsd"] > 0 and record["turns"] >= 1, record  # it is let say what it cost
    assert discarded_tree(own.project, record)["made.txt"][1] == b"work\n"
    wait_until(lambda: len(descendants(pid)) <= 1, what="for all but the next supervisor to end")
    nothing_left(own)


@pytest.mark.parametrize("turns", [
    [WRITE, tool("Bash", command="tail -f /dev/null", timeout=500_000), text("Done.")],  # at its tool
    [WRITE, silence(600)],  # at the model
], ids=["tool", "model"])  # fmt: skip
def test_what_took_too_long_has_cost_something(own: Rig, api: StandIn, client: Path, turns: Sequence[Turn]) -> None:
    """A task that hits its timeout each hour must not escape its budget."""
    own.settings(envPass=["IS_SANDBOX", "CLAUDE_CODE_MAX_RETRIES"], budgets={"taskPerDay": 0.0001})
    record = ran(own, api, client, turns, task(**SKIP, timeout=12))
    assert (record["status"], record.get("reason")) == ("timeout", None), record
    assert record["duration"] < 40_000
    if "oldest" in str(client) and turns[1].delay:  # it says nothing then
        assert session.UNKNOWN in record["notes"]
        return
    assert record.get("costUsd", 0) > 0 and session.UNKNOWN not in record.get("notes", ()), record
    cli = Command(own.project, own.env)
    assert cli("status", "--json").json["spentToday"] == pytest.approx(record["costUsd"])
    assert [one["kind"] for one in cli("status", "--json").json["projects"][0]["open"] if one["kind"] == "budget"]


@pytest.mark.parametrize("end", ["runner", "client"])
def test_what_nobody_saw_end_says_what_it_cost_or_that_it_is_not_known(
    own: Rig, api: StandIn, client: Path, tmp_path: Path, end: str
) -> None:
    """The runner is killed, and the client is told to end by the supervisor; or the client itself is killed."""
    api.play([WRITE, tool("Bash", command=f"touch {tmp_path}/begun; tail -f /dev/null"), text("Done.")])
    own.enable(task(**SKIP), client=os.path.abspath(client))
    pid = own.start()
    run = own.run("job")
    wait_until((tmp_path / "begun").exists)
    if end == "runner":
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        own.start()
    else:
        for member in descendants(pid):
            if os.path.basename(Path(f"/proc/{member}/cmdline").read_bytes().split(b"\0")[0]) == b"claude.exe":
                os.kill(member, signal.SIGKILL)
    record = own.record(run)
    assert (record["status"], record["reason"]) == ("failure", "crashed" if end == "runner" else "signal"), record
    assert (record.get("costUsd", 0) > 0) != (session.UNKNOWN in record.get("notes", ())), record
    if end == "runner" and "oldest" not in str(client):
        assert record["costUsd"] > 0, record


@pytest.mark.full
def test_a_command_that_hangs_is_stalled_though_the_client_sends_heartbeats(
    own: Rig, api: StandIn, client: Path
) -> None:
    """They come every 30 s from newer clients."""
    turns = [WRITE, tool("Bash", command="tail -f /dev/null", timeout=500_000), text("Done.")]
    record = ran(own, api, client, turns, task(**SKIP, stallTimeout=40))
    assert (record["status"], record["reason"]) == ("timeout", "stalled"), record
    assert record["duration"] < 60_000
    assert discarded_tree(own.project, record)["made.txt"][1] == b"work\n"
