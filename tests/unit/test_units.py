from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest

from scheduler.core.units import Installed, agent, launcher, same_launcher, unit
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution.environment import lasting
from scheduler.runner.service import Launchd, Systemd
from scheduler.store import ownenv

STRANGE = """/home/it's a "person"/100% $HOME \\n ü/start-runner"""
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@needs_systemd
@pytest.mark.parametrize("name", ["plain", STRANGE.strip("/").replace("/", " ")])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, name: str) -> None:
    start = tmp_path / name
    start.write_text("#!/bin/sh\n")
    file = tmp_path / "claude-scheduler.service"
    file.write_bytes(unit(str(start)))
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "--recursive-errors=no", "verify", file],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_systemd_would_find_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "bad.service"
    file.write_bytes(
        unit("/start").replace(b"RestartSec=", b"RestartSeconds=").replace(b"/bin/sh", b"/no/such/program")
    )
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "--recursive-errors=no", "verify", file],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "RestartSeconds" in done.stderr and "/no/such/program" in done.stderr


def test_the_agent_of_launchd_says_what_the_unit_says() -> None:
    said = plistlib.loads(agent("claude-scheduler", STRANGE))
    assert said == {
        "Label": "claude-scheduler",
        "ProgramArguments": ["/bin/sh", STRANGE],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 2,
        "ExitTimeOut": 90,
    }


def test_the_unit_restarts_after_a_failure_alone_and_is_started_at_log_in() -> None:
    lines = unit("/a/start-runner").decode().splitlines()
    for line in ('ExecStart=/bin/sh "/a/start-runner"', "Restart=on-failure", "KillMode=mixed", "TimeoutStopSec=90"):
        assert line in lines
    assert lines[-1] == "WantedBy=default.target"


@pytest.mark.parametrize("path", ["/a\nExecStartPre=/bin/rm", "/a\x1b[2J", "/a\udcff"])
def test_a_path_that_no_unit_can_name_is_refused(path: str) -> None:
    for make in (unit, lambda path: agent("name", path)):
        with pytest.raises(SchedulerError, match="cannot be told"):
            make(path)


def test_the_launcher_gives_the_environment_as_it_is(tmp_path: Path) -> None:
    value = 'it\'s $HOME `id` "x"\n\\ \udcff'
    package = tmp_path / "package"
    package.mkdir()
    (package / "__main__.py").write_text(
        "import os, sys; sys.stdout.buffer.write(os.environb[b'A'] + os.environb[b'SCHEDULER_STARTED_BY'])"
    )
    start, log = tmp_path / "start", tmp_path / "the log"
    start.write_bytes(launcher({"A": value}, str(log), Installed(shutil.which("python3") or "", str(package))))
    subprocess.run(["/bin/sh", start], check=True)
    assert log.read_bytes() == value.encode("utf-8", "surrogateescape") + b"service"
    assert log.stat().st_mode & 0o777 == 0o600


def test_neither_file_names_code_that_an_update_replaces(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin"}
    paths = Paths(env)
    for service in (Systemd(paths, env), Launchd(paths, env)):
        assert service.name == "claude-scheduler"
        text = service.text().decode()
        assert paths.service_launcher in text
        for folder in (paths.cache, "/plugins/", "/code/", "/venvs/", os.path.dirname(__file__)):
            assert folder not in text
    script = launcher(env, paths.runner_log, paths.runtime).decode()
    assert "/code/" not in script and "/venvs/" not in script


def test_another_state_folder_has_another_service(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path / "other")}
    assert Systemd(Paths(env), env).name.startswith("claude-scheduler-")


def test_launchers_that_differ_in_their_environment_alone_are_the_same() -> None:
    one, other = (launcher({"PATH": path}, "/log", "/runtime") for path in ("/a", "/b"))
    assert one != other and same_launcher(one, other)
    assert not same_launcher(one, launcher({"PATH": "/a"}, "/log", "/another"))


def test_what_may_be_secret_is_not_written_down() -> None:
    source = {
        "PATH": "/usr/bin",
        "HOME": "/home/me",
        "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-" + "oat01-" + "x" * 86,
        "ANTHROPIC_API_KEY": "something",
        "ANTHROPIC_BASE_URL": "https://gateway.example",
        "ANTHROPIC_CUSTOM_HEADERS": "X-Thing: value",
        "HTTPS_PROXY": "http://me:" + "pa55word@proxy.example:3128",
        "HTTP_PROXY": "http://proxy.example:3128",
        "CLAUDE_CODE_CLIENT_KEY": "/home/me/key.pem",
        "TERM": "xterm",
        "MINE": "also passed on",
        "UNKNOWN": "not ours",
    }
    kept, left_out = lasting(source, ["MINE", "ABSENT"])
    assert sorted(kept) == ["ANTHROPIC_BASE_URL", "CLAUDE_CODE_CLIENT_KEY", "HOME", "HTTP_PROXY", "PATH"]
    assert left_out == [
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_CUSTOM_HEADERS",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "HTTPS_PROXY",
        "MINE",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only\n\n   # this\n", {}),
        ("A=1\nexport B='two words'\nC=\"q\"\nD=\n", {"A": "1", "B": "two words", "C": "q", "D": ""}),
        ("A=$HOME `id`\r\n", {"A": "$HOME `id`"}),
        ("A='", {"A": "'"}),
        ("A=b=c", {"A": "b=c"}),
        ("A=1\nnot a line\n", "line 2"),
        ("1A=1\n", "line 1"),
        ("A=\0\n", "line 1"),
    ],
)
def test_the_users_own_file(tmp_path: Path, text: str, expected: dict[str, str] | str) -> None:
    paths = Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path)})
    file = Path(paths.runner_env)
    file.write_text(text)
    file.chmod(0o600)
    if isinstance(expected, str):
        with pytest.raises(SchedulerError, match=expected):
            ownenv.read(paths)
    else:
        assert ownenv.read(paths) == expected


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602])
def test_the_users_own_file_is_the_users_alone(tmp_path: Path, mode: int) -> None:
    paths = Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path)})
    Path(paths.runner_env).write_text("A=1\n")
    Path(paths.runner_env).chmod(mode)
    with pytest.raises(SchedulerError) as caught:
        ownenv.read(paths)
    assert caught.value.hint.startswith("run: chmod 600 ")
