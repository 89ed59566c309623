"""What conftest.py promises: no test sees the home or environment of the person, and the real client must have run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ENVIRONMENT = """
import os
from pathlib import Path
import pytest

def test_environment(home, tmp_path):
    foreign = ("SCHEDULER_", "CLAUDE", "ANTHROPIC_", "GIT_", "XDG_")
    assert [name for name in os.environ if name.startswith(foreign)] == []
    assert Path.home() == home != tmp_path
    assert [path.name for path in home.iterdir()] == [".gitconfig"]

@pytest.mark.parametrize("touch", [
    lambda place: open(place / "settings.json"),
    lambda place: os.listdir(place),
    lambda place: (place / "scheduler").mkdir(),
])
def test_the_real_home_raises(touch):
    with pytest.raises(BaseException) as raised:
        touch(Path(REAL_HOME, ".claude"))
    assert raised.type.__name__ == "TouchedTheRealHome"
"""
CLIENT = """
def test_with(client):
    assert client.name == "claude"

def test_without():
    pass
"""


def run_pytest(folder: Path, text: str, *options: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    (folder / "tests").mkdir()
    for name in ("conftest.py", "canary.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    (folder / "tests" / "test_it.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        folder,
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, *options, folder / "tests"],
        cwd=folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_nothing_of_the_person_is_seen_or_touched(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / ".claude").mkdir(parents=True)
    (real / ".claude" / "settings.json").write_text("{}")
    foreign = {"HOME": str(real), "SCHEDULER_HOME": "/x", "GIT_DIR": "/x", "CLAUDE_CODE_X": "1", "XDG_CACHE_HOME": "/x"}
    code, output = run_pytest(tmp_path, f"REAL_HOME = {str(real)!r}\n" + ENVIRONMENT, env=foreign)
    assert code == 0, output
    assert not (real / ".claude" / "scheduler").exists()


LEAKS = """
import base64, gzip, os, sqlite3, subprocess
import pytest
from tests.canary import CALLERS, CONFIGURED, SHAPED

def run(*words, cwd):
    subprocess.run(words, cwd=cwd, check=True)

def in_database(place):
    with sqlite3.connect(place / "state.db") as db:
        db.execute("create table t (x)")
        db.execute("insert into t values (?)", (f"a {SHAPED}",))

def behind_a_hole(place):
    with open(place / "a.log", "wb") as file:
        file.seek(1 << 32)
        file.write(CALLERS.encode())
        file.truncate(1 << 33)

def in_message(repo):
    run("git", "commit", "-q", "--allow-empty", "-m", CONFIGURED, cwd=repo)

def in_packed_message(repo):
    in_message(repo)
    run("git", "gc", "-q", cwd=repo)
    run("git", "reset", "-q", "--hard", "HEAD^", cwd=repo)

def in_branch(repo):
    run("git", "branch", SHAPED, cwd=repo)

WAYS = {
    "text": lambda place: (place / "a.log").write_text(f"a {CALLERS}"),
    "half": lambda place: (place / "a.log").write_text(f"a {SHAPED[:-10]}"),
    "large": lambda place: (place / "a.log").write_text("x" * 2_000_000 + CALLERS),
    "behind a hole": behind_a_hole,
    "base64": lambda place: (place / "a.log").write_bytes(base64.b64encode(b"ab" + CALLERS.encode())),
    "archive": lambda place: (place / "a.jsonl.gz").write_bytes(gzip.compress(CONFIGURED.encode())),
    "name": lambda place: (place / CALLERS).mkdir(),
    "database": in_database,
}

@pytest.mark.parametrize("way", WAYS)
def test_leaks(way, tmp_path):
    WAYS[way](tmp_path)

def test_leaks_at_home(home):
    (home / "x").write_text(os.environ["CANARY_OF_SUITE_TOKEN"])

@pytest.mark.parametrize("way", [in_message, in_packed_message, in_branch])
def test_leaks_in_git(way, repo):
    way(repo)

def test_of_its_own(tmp_path):
    (tmp_path / "config.json").write_text(CONFIGURED)
"""


def test_h4_a_planted_secret_on_the_disk_fails_the_test_that_left_it(tmp_path: Path) -> None:
    code, output = run_pytest(tmp_path, LEAKS)
    assert code == 1 and "13 passed, 12 errors" in output, output
    assert output.count("AssertionError: a planted secret was written: [") == 12


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 0, "1 passed, 2 skipped"),
        (["--require-client"], 1, "FAILED --require-client: no test with the real client ran"),
        (["--require-client", "--client=/x/claude"], 0, "2 passed, 1 skipped"),
        (["--require-client", "--client=/x/claude", "-n1"], 0, "2 passed, 1 skipped"),
        (["--require-client", "--client=/x/claude", "-k", "without"], 1, "no test with the real client ran"),
        (["--require-client", "--client=/x/claude", "--full"], 1, "did not run in tests/test_it.py::test_with[oldest]"),
        (["--require-client", "--client=/x/claude", "--full", "--client-oldest=/y/claude"], 0, "3 passed"),
    ],
)
def test_the_real_client_must_have_run(tmp_path: Path, options: list[str], code: int, words: str) -> None:
    done, output = run_pytest(tmp_path, CLIENT, *options)
    assert words in output
    assert done == code, output
