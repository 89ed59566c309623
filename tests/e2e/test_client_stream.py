"""The real client at the stand-in: what we call is what it understands, what it says is what we read."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from scheduler.core.record import Reason, Status
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution.claude import auth_status, client_version
from scheduler.execution.stream import ResultReader
from tests.client import LOGGED_OUT, SUBSCRIPTION, client_environment, execution, run_client
from tests.conftest import Git
from tests.golden.record import edit_with_hook, play
from tests.scenarios import RESETS_AT, SCENARIOS
from tests.standin import StandIn, text, tool, usage_limit


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_end_gets_its_verdict(client: Path, tmp_path: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    ran = play(client, scenario, tmp_path)
    assert (ran.verdict.status, ran.verdict.reason) == (scenario.status, scenario.reason), ran
    assert ran.returncode == scenario.returncode
    if name == "done":
        assert (tmp_path / "work" / "new.txt").read_text() == "hello\n"
        assert (tmp_path / "work" / "old.txt").read_text() == "two\n"


def test_it_may_write_in_a_worktree_and_the_hook_hears_it(client: Path, tmp_path: Path, repo: Path, git: Git) -> None:
    home = tmp_path / "person"
    worktree = Path(Paths({"HOME": str(home)}).worktrees, "repo-12345678", "task-12345678")
    worktree.parent.mkdir(parents=True)
    git("worktree", "add", "-q", "-b", "claude-task/task", worktree, cwd=repo)

    ran, heard = edit_with_hook(client, home, worktree)

    assert ran.verdict.status is Status.SUCCESS, ran
    assert git("status", "--porcelain", cwd=worktree).splitlines() == [f"?? {n}" for n in _names(worktree)]
    assert (worktree / "old.txt").read_text() == "two\n"
    assert "print(2)" in (worktree / "book.ipynb").read_text()
    assert sorted((call["tool_name"], "agent_id" in call) for call in heard) == [
        ("Edit", False),
        ("NotebookEdit", False),
        ("Write", False),
        ("Write", True),
    ]
    assert {call["session_id"] for call in heard} == {ran.report.session_id}
    assert len({call["tool_use_id"] for call in heard}) == 4


def _names(worktree: Path) -> list[str]:
    return sorted(path.name for path in worktree.iterdir() if path.name not in (".git", "README.md"))


def test_it_is_called_as_the_task_says(client: Path, tmp_path: Path) -> None:
    """Rules with commas and spaces reach the client whole, and no value is taken for a flag."""
    allowed = ["Bash(echo one, two)", "Bash(test -d *)", "--dangerously-skip-permissions"]
    prompt = "--model nothing\n" + "long " * 40_000
    session_id = str(uuid.uuid4())
    with StandIn() as api:
        api.play(
            [
                tool("Bash", command="echo one, two"),
                tool("Bash", command="test -d ."),
                tool("Bash", command="curl example.invalid"),
                text("Done."),
            ],
            when="--model nothing",
        )
        work = execution(prompt, permissionMode="default", allowedTools=allowed, model="sonnet", maxTurns=9)
        env = client_environment(tmp_path, api)
        ran = run_client(client, work, cwd=tmp_path, env=env, session_id=session_id)
    assert ran.verdict.error == "tools were denied: Bash"
    assert "✗ Bash: This command requires approval" in ran.log
    assert ran.log.count("✗") == 1
    assert "sonnet" in str(ran.report.model)
    assert ran.report.session_id == session_id
    assert api.turns[0].prompt == prompt.strip()
    init = json.loads(ran.stdout.splitlines()[0])
    assert init["permissionMode"] == "default"


def test_a_session_goes_on_after_its_limit(client: Path, tmp_path: Path) -> None:
    session_id = str(uuid.uuid4())
    with StandIn() as api:
        env = client_environment(tmp_path, api, SUBSCRIPTION)
        api.play([tool("Bash", command="touch begun"), usage_limit(RESETS_AT)])
        work = execution(skipPermissions=True)
        first = run_client(client, work, cwd=tmp_path, env=env, session_id=session_id)
        assert (first.verdict.reason, first.report.limit_type) == (Reason.USAGE_LIMIT, "five_hour")
        assert (tmp_path / "begun").exists()

        api.play([text("The rest is done.")])
        go_on = execution("Go on where you were stopped.", skipPermissions=True)
        second = run_client(client, go_on, cwd=tmp_path, env=env, session_id=session_id, resume=True)
    assert second.verdict.status is Status.SUCCESS, second
    assert second.report.session_id == session_id
    assert second.report.result_text == "The rest is done."
    said = api.turns[-1].said
    assert "do the work" in said and "Go on where you were stopped." in said


def test_what_it_does_not_understand_it_says_without_a_result(client: Path, tmp_path: Path) -> None:
    with StandIn() as api:
        env = client_environment(tmp_path, api)
        ran = run_client(client, execution(), cwd=tmp_path, env=env, session_id="no-uuid")
    assert ran.verdict.reason is Reason.NO_RESULT
    assert "Invalid session ID" in str(ran.verdict.error)


def test_it_tells_its_version_and_its_login(client: Path, tmp_path: Path) -> None:
    with StandIn() as api:
        env = client_environment(tmp_path, api)
        assert client_version(client, env).count(".") == 2
        state = auth_status(client, env)
        assert (state.logged_in, state.method, state.detail) == (True, "api_key", "")
        assert auth_status(client, client_environment(tmp_path, api, SUBSCRIPTION)).method == "oauth_token"
        state = auth_status(client, client_environment(tmp_path, api, LOGGED_OUT))
        assert (state.logged_in, state.method, state.detail) == (False, "none", "the client is not logged in")
        assert api.requests == []


def test_a_program_that_is_no_client_is_told_apart(tmp_path: Path) -> None:
    other = tmp_path / "claude"
    other.write_text("#!/bin/sh\necho hello; exit 7\n")
    other.chmod(0o755)
    state = auth_status(other, {})
    assert (state.logged_in, state.method) == (False, "unknown")
    assert state.detail == "`claude auth status` gave no answer (exit code 7)"
    assert not auth_status(tmp_path / "missing", {}).logged_in
    other.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(SchedulerError, match="does not tell its version"):
        client_version(other, {})


def test_the_reader_keeps_up_with_the_stream(client: Path, tmp_path: Path) -> None:
    """An answer of a megabyte, as one line of the stream."""
    words = "much to say " * 100_000
    with StandIn() as api:
        api.play([text(words)])
        env = client_environment(tmp_path, api)
        ran = run_client(client, execution(), cwd=tmp_path, env=env, session_id=str(uuid.uuid4()))
    assert ran.report.result_text == words
    assert len(max(ran.log.splitlines(), key=len)) <= 21 * 1024  # whoever redacts it cuts the rest
    short = ResultReader(max_line=1 << 16)
    assert any("was left out" in line for line in short.feed(ran.stdout))
