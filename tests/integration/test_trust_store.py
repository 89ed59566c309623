from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from scheduler.disk.paths import Paths
from scheduler.errors import CorruptFile, SchedulerError
from scheduler.store import trust
from scheduler.store.config import Source

AT = "2026-12-01T09:00:00.000+01:00"


@pytest.fixture
def where(tmp_path: Path) -> Paths:
    return Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path / "state")})


def project(root: str = "/p", **changes: object) -> trust.Project:
    return trust.Project(root, True, "/usr/bin:/bin", None, AT)


def source(text: str = "{}", root: str = "/p", rules: bytes | None = None) -> Source:
    return Source(root, text.encode(), rules)


def test_nothing_is_approved_where_there_is_no_store(where: Paths) -> None:
    assert trust.read(where) == {}


def test_an_approval_goes_round(where: Paths) -> None:
    projects = trust.approved({"/p": project()}, source("{}", rules=b"Be kind."), AT)
    trust.write(where, projects)
    assert trust.read(where) == projects
    assert trust.read(where)["/p"].approves(source("{}", rules=b"Be kind."))


@pytest.mark.parametrize(
    "other", [source("{} "), source("{}", rules=b""), source("{}", root="/q"), source("", rules=b"{}")]
)
def test_only_the_exact_content_at_the_exact_place_is_approved(other: Source) -> None:
    projects = trust.approved({"/p": project()}, source("{}"), AT)
    assert projects["/p"].approves(source("{}"))
    assert not projects["/p"].approves(other)


def test_going_back_needs_no_new_approval(where: Paths) -> None:
    projects = {"/p": project()}
    for text in ("1", "2", "1", "3"):
        projects = trust.approved(projects, source(text), AT)
    approvals = projects["/p"].approvals
    assert [a.config for a in approvals] == ["2", "1", "3"]
    assert all(projects["/p"].approves(source(text)) for text in "123")


def test_the_oldest_approval_goes_first() -> None:
    projects = {"/p": project()}
    for number in range(trust.KEPT + 1):
        projects = trust.approved(projects, source(str(number)), AT)
    assert not projects["/p"].approves(source("0"))
    assert projects["/p"].approves(source("1")) and len(projects["/p"].approvals) == trust.KEPT


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"projects": 1}', b'{"projects": {"/p": {}}}', b"\xff", b"[" * 99999]
)
def test_a_damaged_store_approves_nothing_and_is_left(where: Paths, data: bytes) -> None:
    os.makedirs(where.state, 0o700)
    Path(where.trust).write_bytes(data)
    with pytest.raises(CorruptFile):
        trust.read(where)
    assert Path(where.trust).read_bytes() == data


def test_a_store_that_others_can_write_is_refused(where: Paths) -> None:
    trust.write(where, {"/p": project()})
    assert (os.stat(where.trust).st_mode & 0o777, os.stat(where.state).st_mode & 0o777) == (0o600, 0o700)
    os.chmod(where.trust, 0o622)
    with pytest.raises(SchedulerError, match="writable by everybody"):
        trust.read(where)
    os.chmod(where.trust, 0o600)
    os.chmod(where.state, 0o777)
    with pytest.raises(SchedulerError, match="writable by everybody"):
        trust.read(where)


def test_a_store_within_a_repository_is_refused(tmp_path: Path) -> None:
    """Also by a link, and from a linked worktree; a home that is a repository is the user's own."""
    home, clone = tmp_path / "home", tmp_path / "home/clone"
    (clone / ".claude/scheduler").mkdir(parents=True)
    (home / "link").symlink_to(clone / ".claude")
    for folder in (clone / ".claude", home / "link"):
        where = Paths({"HOME": str(home), "CLAUDE_CONFIG_DIR": str(folder)})
        assert trust.read(where) == {}
        (clone / ".git").write_text("gitdir: /elsewhere\n")
        with pytest.raises(SchedulerError, match=f"are in the repository {clone},"):
            trust.read(where)
        (clone / ".git").unlink()
    (home / ".git").mkdir()
    assert trust.read(Paths({"HOME": str(home)})) == {}


def test_a_folder_that_others_can_write_gets_no_store(where: Paths) -> None:
    """A7: not even the first one, though there is nothing yet that they could have written."""
    os.mkdir(where.state)
    os.chmod(where.state, 0o777)
    for place in (where.state, f"{where.state}-link"):
        if place != where.state:
            os.symlink(where.state, place)
        linked = Paths({"HOME": os.path.dirname(place), "SCHEDULER_HOME": place})
        with pytest.raises(SchedulerError, match="writable by everybody") as told:
            trust.read(linked)
        assert told.value.hint == f"look at it, then run: chmod go-rwx '{place}'"
    os.chmod(where.state, 0o700)
    assert trust.read(where) == {}


def test_enabled_is_only_what_says_true(where: Paths) -> None:
    trust.write(where, {"/p": project()})
    raw = json.loads(Path(where.trust).read_text())
    raw["projects"]["/p"]["enabled"] = "yes"
    Path(where.trust).write_text(json.dumps(raw))
    assert trust.read(where)["/p"].enabled is False
