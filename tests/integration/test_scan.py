"""What counts as a secret that a run brought in: in lines, binary files, names, messages, of any of its commits."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.core.redact import Redactor
from scheduler.execution import git as door
from scheduler.execution import scan
from tests.samples import PASSWORD, private_key, some

TOKEN = "ghp_" + some(36)
KNOWN = "correct horse battery staple"
NOISE = random.Random(5).randbytes(20_000) + b"\0"
Git = Callable[..., str]


def brought(repo: Path, git: Git, notes: list[str] | None = None, base: str = "base") -> list[tuple[str, str]]:
    project = door.find_project(repo)
    found = scan.new_secrets(project, base, "HEAD", Redactor([KNOWN]), [] if notes is None else notes)
    assert all(len(one.text) >= 6 for one in found)
    return [(one.path, one.kind) for one in found]


@pytest.fixture
def work(repo: Path, git: Git) -> Path:
    """A repository that holds some secrets already."""
    (repo / "old.py").write_text(f'old = "ghp_{"x9" * 18}"\n')
    (repo / "old.bin").write_bytes(NOISE + f"ghp_{'y8' * 18}".encode())
    (repo / "old.key").write_text(OLD_KEY)
    git("add", "-A", cwd=repo)
    git("commit", "-qm", "old", cwd=repo)
    git("tag", "base", cwd=repo)
    return repo


OLD_KEY = private_key() + "\n"


def commit(repo: Path, git: Git, message: str = "work") -> None:
    git("add", "-A", cwd=repo)
    git("commit", "-qm", message, cwd=repo)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (NOISE + TOKEN.encode() + NOISE, "github-token"),
        (NOISE + KNOWN.encode(), "known"),
        (f"x = '{TOKEN}'".encode("utf-16"), "github-token"),
        (KNOWN.encode("utf-16-be"), "known"),
        (b"\0" + private_key().encode(), "private-key"),
        (f"password = '{PASSWORD}'".encode(), "password"),
        (f"to\x1b[1mken ghp_\u200b{TOKEN[4:]}".encode(), "github-token"),
    ],
)
def test_in_a_file_of_any_kind(work: Path, git: Git, data: bytes, kind: str) -> None:
    (work / "made.dat").write_bytes(data)
    commit(work, git)
    assert brought(work, git) == [("made.dat", kind)]


def test_in_a_text_that_its_attributes_hide_from_diffs(work: Path, git: Git) -> None:
    (work / ".gitattributes").write_text("*.lock -diff\n")
    (work / "made.lock").write_text(f"password = '{PASSWORD}'\n")
    commit(work, git)
    assert brought(work, git) == [("made.lock", "password")]


@pytest.mark.parametrize("end", ["\n", " ", "\n" * 50])
@pytest.mark.parametrize("start", ["\x1b]", "\x1bP", "\x1b_", "\x1b", "\x1b["])
def test_behind_the_beginning_of_an_escape_sequence(work: Path, git: Git, start: str, end: str) -> None:
    """What a terminal would take for a title is in the file all the same, and so is the next file."""
    (work / "a.txt").write_text(f"{start}{end}{TOKEN}\n")
    (work / "b.txt").write_text(f"{KNOWN}\n")
    commit(work, git, f"{start}{end}{TOKEN}")
    told = [("a.txt", "github-token"), ("b.txt", "known"), ("the message of commit", "github-token")]
    assert [(path.rpartition(" ")[0] or path, kind) for path, kind in brought(work, git)] == told


def test_in_a_name(work: Path, git: Git) -> None:
    (work / "folder").mkdir()
    (work / "folder" / f"{TOKEN}.txt").write_text("nothing\n")
    commit(work, git)
    assert brought(work, git) == [(f"folder/{TOKEN}.txt", "github-token")]


def test_in_the_message_of_a_commit_of_the_agents_own(work: Path, git: Git) -> None:
    (work / "a.txt").write_text("a\n")
    commit(work, git, f"Use the new token\n\nIt is {TOKEN}.")
    (work / "a.txt").write_text("b\n")
    commit(work, git)
    ((path, kind),) = brought(work, git)
    assert (
        kind == "github-token" and path == f"the message of commit {git('log', '-1', '--format=%h', 'HEAD^', cwd=work)}"
    )


def test_in_the_message_behind_an_empty_one(work: Path, git: Git) -> None:
    git("commit", "-q", "--allow-empty", "-m", f"It is {TOKEN}.", cwd=work)
    for _ in range(2):
        git("commit", "-q", "--allow-empty", "--allow-empty-message", "-m", "", cwd=work)
        assert [kind for _, kind in brought(work, git)] == ["github-token"]


def test_in_the_name_of_who_made_a_commit(work: Path, git: Git) -> None:
    (work / "a.txt").write_text("a\n")
    git("add", "-A", cwd=work)
    git("-c", f"user.name=An agent {TOKEN}", "commit", "-qm", "a", cwd=work)
    name = git("log", "-1", "--format=%h", cwd=work)
    assert brought(work, git) == [(f"the author of commit {name}", "github-token")]
    (work / "a.txt").write_text("b\n")
    git("-c", f"user.name=An agent {TOKEN}", "commit", "-qam", "b", cwd=work)
    assert brought(work, git, base=name) == []


@pytest.mark.parametrize("data", [TOKEN.encode(), NOISE + TOKEN.encode()])
def test_what_a_later_commit_takes_away_was_brought_all_the_same(work: Path, git: Git, data: bytes) -> None:
    (work / "made.dat").write_bytes(data)
    commit(work, git)
    (work / "made.dat").unlink()
    commit(work, git)
    assert brought(work, git) == [("made.dat", "github-token")]


def test_what_stood_in_the_repository_before_is_not_new(work: Path, git: Git) -> None:
    (work / "copy.py").write_text("# copied\n" + (work / "old.py").read_text())
    (work / "copy.bin").write_bytes((work / "old.bin").read_bytes() + b"\nmore")
    (work / "copy.key").write_text(OLD_KEY)
    (work / "old.bin").write_bytes(b"changed\0" + (work / "old.bin").read_bytes())
    commit(work, git)
    (work / "old.py").unlink()
    (work / "old.key").unlink()
    commit(work, git)
    assert brought(work, git) == []


def test_a_binary_file_that_is_too_large_is_named(work: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BINARY_LIMIT", 10_000)
    (work / "large.bin").write_bytes(NOISE + TOKEN.encode())
    commit(work, git)
    notes: list[str] = []
    assert brought(work, git, notes) == []
    assert notes == ["1 binary file over 9.8 KB not looked through for secrets: large.bin"]


def test_names_of_all_kinds_are_read_as_git_writes_them(work: Path, git: Git) -> None:
    for name in (":100644 a", "a\tb", "ö\n", "-\t-\tx"):
        (work / name).write_bytes(NOISE + TOKEN.encode())
    commit(work, git)
    assert {path for path, _ in brought(work, git)} == {":100644 a", "a\tb", "ö\n", "-\t-\tx"}


def test_a_merge_brings_what_it_adds_itself(work: Path, git: Git) -> None:
    git("switch", "-qc", "side", cwd=work)
    (work / "side.txt").write_text("side\n")
    commit(work, git)
    git("switch", "-q", "main", cwd=work)
    (work / "main.txt").write_text("main\n")
    commit(work, git)
    git("merge", "-q", "--no-commit", "side", cwd=work)
    (work / "evil.bin").write_bytes(NOISE + TOKEN.encode())
    commit(work, git, "merged")
    assert brought(work, git) == [("evil.bin", "github-token")]
