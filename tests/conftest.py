"""What every test shares: an environment of its own, a home of its own, real git, and the real client.

No test may touch the home of the person who runs it. The environment points elsewhere, and an attempt to open a file
of the real client or of a real scheduler raises.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from scheduler.execution import tree
from tests import canary

FOREIGN_PREFIXES = ("SCHEDULER_", "CLAUDE", "ANTHROPIC_", "GIT_", "XDG_")
FOREIGN_NAMES = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TZ", "CI", "EDITOR", "VISUAL", "PAGER", "VIRTUAL_ENV")

GITCONFIG = """\
[user]
	name = Test Person
	email = person@example.invalid
[init]
	defaultBranch = main
[commit]
	gpgsign = false
[gc]
	auto = 0
[maintenance]
	auto = false
[protocol "file"]
	allow = always
"""

hypothesis.settings.register_profile(
    "scheduler",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.register_profile("scheduler-full", hypothesis.settings.get_profile("scheduler"), derandomize=False)


class TouchedTheRealHome(BaseException):
    """A test reached for the files of the person who runs it; point it at `home` or `tmp_path`."""


def _real_places() -> tuple[str, ...]:
    home = os.path.realpath(os.path.expanduser("~"))
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    places = [
        os.path.join(home, ".claude"),
        os.path.join(home, ".claude.json"),
        os.path.join(home, ".omc"),
        os.path.join(state, "claude-scheduler"),
    ]
    if os.environ.get("CLAUDE_CONFIG_DIR"):
        places.append(os.path.realpath(os.environ["CLAUDE_CONFIG_DIR"]))
    return tuple(places)


REAL_PLACES = _real_places()
WATCHED_EVENTS = frozenset(
    "open os.listdir os.scandir os.mkdir os.rename os.remove os.rmdir os.link os.symlink os.truncate os.chmod "
    "sqlite3.connect".split()
)


def _refuse_the_real_home(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in WATCHED_EVENTS:
        return
    for argument in arguments:
        if not isinstance(argument, (str, bytes)):
            continue
        path = os.fsdecode(argument)
        for place in REAL_PLACES:
            if path == place or path.startswith(place + os.sep):
                raise TouchedTheRealHome(f"{event} {path}")


def _strip_environment() -> None:
    for name in list(os.environ):
        if name.startswith(FOREIGN_PREFIXES) or name in FOREIGN_NAMES:
            del os.environ[name]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("scheduler")
    group.addoption("--full", action="store_true", help="also run the tests marked `full`")
    group.addoption("--client", metavar="PATH", help="the real Claude Code client of the newest pinned version")
    group.addoption("--client-oldest", metavar="PATH", help="the real client of the oldest supported version (--full)")
    group.addoption("--require-client", action="store_true", help="fail if a test with the real client did not run")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("scheduler-full" if config.getoption("--full") else "scheduler")
    config.pluginmanager.register(ClientTally(config), "client-tally")
    _strip_environment()
    if not getattr(sys, "_scheduler_home_guarded", False):
        sys.addaudithook(_refuse_the_real_home)
        sys._scheduler_home_guarded = True  # type: ignore[attr-defined]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "client" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.client)
        if item.get_closest_marker("full") and not config.getoption("--full"):
            item.add_marker(pytest.mark.skip(reason="runs only with --full"))


class ClientTally:
    """Counts what became of the tests with the real client, so that `--require-client` can fail a run without them."""

    def __init__(self, config: pytest.Config) -> None:
        self.required = config.getoption("--require-client") and not hasattr(config, "workerinput")
        self.full = config.getoption("--full")
        self.ran: set[str] = set()
        self.skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "client" not in report.keywords or ("full" in report.keywords and not self.full):
            return
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped[report.nodeid] = reason
        elif report.when == "call":
            self.ran.add(report.nodeid)

    def complaints(self) -> list[str]:
        """One line for each reason why the run does not count."""
        if not self.required:
            return []
        lines = [f"the real client did not run in {test}: {reason}" for test, reason in sorted(self.skipped.items())]
        return lines if self.ran else ["no test with the real client ran", *lines]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.complaints() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for line in self.complaints():
            terminalreporter.write_line(f"FAILED --require-client: {line}", red=True)


_homes = itertools.count()


@pytest.fixture(scope="session")
def _homes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def home(_homes_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The HOME of this test: empty but for a git identity. Outside `tmp_path`."""
    folder = _homes_root / f"home{next(_homes)}"
    folder.mkdir()
    (folder / ".gitconfig").write_text(GITCONFIG)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _no_secret_on_disk(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plant a secret in the environment; once all is over, search all that was written for it and its kin.

    The first fixture of each test, so that nothing of the product is at work any more when it searches.
    """
    for name, value in canary.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    yield
    found = [leak for folder in (home, tmp_path) for leak in canary.leaks(folder)]
    assert not found, f"a planted secret was written: {found}"


@pytest.fixture(autouse=True)
def _own_process_as_before() -> Iterator[None]:
    """Code of ours that runs in the tests' own process may go elsewhere and adopt orphans; the next test must not."""
    folder = os.getcwd()
    yield
    os.chdir(folder)
    tree._prctl(tree.PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture
def scheduler_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`SCHEDULER_HOME` of this test: state, logs and worktrees of the scheduler below one folder."""
    folder = tmp_path / "scheduler-home"
    monkeypatch.setenv("SCHEDULER_HOME", str(folder))
    return folder


Git = Callable[..., str]


@pytest.fixture
def git() -> Git:
    """Runs real git: `git("status", "-s", cwd=repo)` returns its output without the last line break, or raises."""

    def run(*arguments: str | Path, cwd: Path) -> str:
        done = subprocess.run(["git", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"git {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.rstrip("\n")

    return run


@pytest.fixture
def repo(tmp_path: Path, git: Git) -> Path:
    """A git repository on branch `main` with one commit that holds `README.md`."""
    folder = tmp_path / "repo"
    folder.mkdir()
    git("init", "-q", "-b", "main", cwd=folder)
    (folder / "README.md").write_text("# A project\n")
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "First", cwd=folder)
    return folder


@pytest.fixture(params=["newest", pytest.param("oldest", marks=pytest.mark.full)])
def client(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The real Claude Code client's program. A test that asks for it is marked `client`, and with --full runs twice."""
    option = "--client" if request.param == "newest" else "--client-oldest"
    given = request.config.getoption(option)
    if not given:
        pytest.skip(f"no real client: scripts/test installs it, or give {option} PATH")
    yield Path(given)
