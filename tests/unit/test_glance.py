from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import glance

ENTRY: dict[str, Any] = {
    "enabled": True,
    "trusted": True,
    "suspended": None,
    "tasks": 2,
    "active": 1,
    "next": [{"task": "nightly", "at": 1_800_000_000.5}],
    "running": 0,
    "recent": [{"run": "0a1b2c3d", "task": "nightly", "status": "success", "reason": None, "at": 1.0, "costUsd": 0.25}],
    "open": [{"kind": "review", "run": "0a1b2c3d", "task": "nightly", "at": 1.0}],
}


def test_it_holds_only_so_many_matters(path: Path) -> None:
    glance.update(path, "/p", {**ENTRY, "open": ENTRY["open"] * 60})
    found = glance.read(path)
    assert found is not None and len(found["projects"]["/p"]["open"]) == glance.OPEN


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "glance.json"


def test_what_is_written_is_read(path: Path) -> None:
    glance.update(path, "/a", ENTRY, now=7.0)
    assert glance.read(path) == {"version": 1, "writtenAt": 7.0, "runner": None, "projects": {"/a": ENTRY}}
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_update_leaves_the_others_alone(path: Path) -> None:
    runner = {"pid": 1, "version": "0.1.0", "startedAt": 5}
    glance.update(path, "/a", ENTRY, runner=runner)
    glance.update(path, "/b/ö \"'", {**ENTRY, "tasks": 9})
    glance.update(path, "/a", None)
    found = glance.read(path)
    assert found is not None
    assert (found["runner"], list(found["projects"])) == (runner, ["/b/ö \"'"])
    glance.update(path, None, None, runner=None)
    found = glance.read(path)
    assert found is not None
    assert (found["runner"], found["projects"]["/b/ö \"'"]["tasks"]) == (None, 9)


def test_one_project_is_read_without_the_others(path: Path) -> None:
    names = ["/a", "/a/b", '/with "quotes"', "/ü\n", "/a\\"]
    for number, name in enumerate(names):
        glance.update(path, name, {**ENTRY, "tasks": number, "suspended": '\n"/gone":{}'}, runner={"pid": 5})
    for number, name in enumerate(names):
        found = glance.read(path, name)
        assert found is not None
        assert (list(found["projects"]), found["projects"][name]["tasks"], found["runner"]) == (
            [name],
            number,
            {"pid": 5},
        )
    for name in ("/gone", "", "/a/", "b"):
        found = glance.read(path, name)
        assert found is not None
        assert found["projects"] == {}
    path.write_text(json.dumps(glance.read(path), indent=1))  # written by somebody else
    found = glance.read(path, "/a/b")
    assert found is not None
    assert found["projects"]["/a/b"]["tasks"] == 1
    path.write_bytes(path.read_bytes()[:-3])
    assert glance.read(path, "/a/b") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"version": 2, "projects": {}}',
        b'{"version": 1, "projects": []}',
        b'{"version": 1, "projects": {"/a": 1}}',
        b'{"version": 1}',
        b"[" * 100_000,
        b" " * (glance.LIMIT + 1),
    ],
)
def test_what_is_damaged_is_not_read_and_moved_aside_by_the_next_update(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert (glance.read(path), glance.read(path, "/a")) == (None, None)
    glance.update(path, "/a", ENTRY, now=5.0)
    assert (path.parent / "glance.json.corrupt-5").read_bytes() == content
    found = glance.read(path)
    assert found is not None
    assert found["projects"] == {"/a": ENTRY}


def test_what_is_no_file_is_not_read(path: Path) -> None:
    assert glance.read(path) is None
    path.parent.mkdir()
    os.mkfifo(path)
    assert glance.read(path) is None


def _write_some(path: Path, writer: int) -> None:
    for number in range(20):
        glance.update(path, f"/{writer}/{number}", ENTRY)


def test_no_update_is_lost_where_several_write(path: Path) -> None:
    writers = [multiprocessing.get_context("fork").Process(target=_write_some, args=(path, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(json.loads(path.read_text())["projects"]) == 80
