"""The real client in the sandbox, and the real client where it changes what decides over it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.disk import paths as places
from scheduler.store import trust
from tests.boxes import need_sandbox
from tests.client import API_KEY, SUBSCRIPTION
from tests.e2e.test_runs_client import PROMPT, log_in, ran, task
from tests.repos import git
from tests.rig import Rig, rig
from tests.runs import branch_tree, discarded_tree
from tests.standin import StandIn, text, tool, usage_limit


@pytest.fixture
def api() -> Iterator[StandIn]:
    with StandIn() as made:
        yield made


@pytest.fixture
def own(tmp_path: Path, api: StandIn, client: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        log_in(made, api, API_KEY)
        yield made


def changes_of(own: Rig, run_id: str) -> set[str]:
    lines = Path(places.file_changes(str(own.project))).read_text().splitlines()
    return {change["path"] for change in map(json.loads, lines) if change.get("run") == run_id}


def test_it_works_in_the_sandbox_and_cannot_leave_it(own: Rig, api: StandIn, client: Path) -> None:
    need_sandbox()
    mine = own.home / ".claude"
    mine.mkdir()
    (mine / "settings.json").write_text("{}")
    (own.home / ".claude.json").write_text('{"userID": "me"}')
    hook = own.project / ".git/hooks/pre-push"
    turns = [
        tool("Write", file_path="new.txt", content="hello\n"),
        tool("Bash", command="git add -A && git commit -qm own && echo more > more.txt && echo $TMPDIR"),
        tool("Write", file_path=str(hook), content="evil"),
        tool("Write", file_path=str(mine / "settings.json"), content='{"hooks": {}}'),
        text("Done."),
    ]
    record = ran(own, api, client, turns, task(skipPermissions=True, sandbox="bwrap"))
    assert (record["status"], record["sandbox"], record.get("notes")) == ("success", "bwrap", None), record
    tree = branch_tree(own.project, record)
    assert (tree["new.txt"][1], tree["more.txt"][1]) == (b"hello\n", b"more\n")
    assert changes_of(own, record["id"]) == {"new.txt"} | (
        changes_of(own, record["id"]) & {str(mine / "settings.json")}  # where it wrote to a copy that is gone
    )
    assert not hook.exists() and (mine / "settings.json").read_text() == "{}"
    assert (own.home / ".claude.json").read_text() == '{"userID": "me"}'
    session = list((mine / "projects").rglob(f"{record['sessionId']}.jsonl"))
    assert len(session) == 1 and sorted(path.name for path in mine.iterdir()) == ["projects", "settings.json"]


def test_a_session_goes_on_in_the_sandbox_after_a_usage_limit(own: Rig, api: StandIn, client: Path) -> None:
    need_sandbox()
    log_in(own, api, SUBSCRIPTION)
    turns = [
        tool("Write", file_path="one.txt", content="1\n"),
        usage_limit(resets_at=int(time.time()) + 4),
        tool("Write", file_path="two.txt", content="2\n"),
        text("Done."),
    ]
    record = ran(own, api, client, turns, task(sandbox="bwrap"))
    assert (record["status"], record.get("reason")) == ("success", None), record
    tree = branch_tree(own.project, record)
    assert (tree["one.txt"][1], tree["two.txt"][1]) == (b"1\n", b"2\n")
    assert changes_of(own, record["id"]) == {"one.txt", "two.txt"}


def test_when_it_takes_too_long_it_is_let_say_what_it_cost(own: Rig, api: StandIn, client: Path) -> None:
    """Inside, where what starts it must not be interrupted."""
    need_sandbox()
    turns = [
        tool("Write", file_path="one.txt", content="1\n"),
        tool("Bash", command="tail -f /dev/null", timeout=500_000),
        text("Done."),
    ]
    record = ran(own, api, client, turns, task(skipPermissions=True, sandbox="bwrap", timeout=15))
    assert (record["status"], record.get("reason"), record["sandbox"]) == ("timeout", None, "bwrap"), record
    assert record["costUsd"] > 0 and record["turns"] >= 1, record
    assert discarded_tree(own.project, record)["one.txt"][1] == b"1\n"


def test_a_write_to_a_hook_of_git_is_a_self_edit(own: Rig, api: StandIn, client: Path) -> None:
    """E17, I5: by a tool call of the real client, seen by its hook."""
    hook = own.project / ".git/hooks/pre-push"
    turns = [
        tool("Write", file_path="new.txt", content="hello\n"),
        tool("Write", file_path=str(hook), content="#!/bin/sh\necho evil\n"),
        text("Done."),
    ]
    api.play(turns)
    own.enable(task(PROMPT, skipPermissions=True), client=os.path.abspath(client))
    own.start()
    record = own.run_to_end("job")
    assert (record["status"], record["reason"]) == ("failure", "self-edit"), record
    assert record["error"] == "the run changed what decides over it: the git hook pre-push"
    assert git("show", f"{record['discardedRef']}:new.txt", cwd=own.project) == "hello"
    suspension = trust.read(own.paths)[str(own.project)].suspension
    assert suspension is not None and "+echo evil" in suspension.difference
