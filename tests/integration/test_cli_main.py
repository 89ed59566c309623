from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

import scheduler
from scheduler.cli.main import SECTIONS, VERBS
from scheduler.cli.report import write_report
from scheduler.core.schema import config_schema
from tests.command import PACKAGE, Command, environment


@pytest.fixture
def cli(tmp_path: Path, home: Path, repo: Path) -> Command:
    return Command(repo, environment(home, tmp_path / "state"))


def test_help_names_every_verb_and_imports_none(cli: Command) -> None:
    said = cli("--help").out
    for verbs in SECTIONS.values():
        for name, verb in verbs.items():
            assert re.search(rf"^  {name} +{re.escape(verb.summary)}$", said, re.MULTILINE), name
    env = {name: value for name, value in cli.env.items() if not name.startswith("COVERAGE_")}
    argv = [sys.executable, "-X", "importtime", "-I", str(PACKAGE), "--help"]
    listed = subprocess.run(argv, env=env, cwd=cli.folder, capture_output=True, text=True, check=True).stderr
    for heavy in ("pydantic", "rich", "croniter", "git", "sqlite3", "cron_descriptor", "tzlocal", "asyncio"):
        assert f"| {heavy}\n" not in listed and f" {heavy}\n" not in listed, heavy


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(cli: Command, verb: str) -> None:
    said = cli(verb, "--help").out
    assert said.startswith(f"Usage: scheduler {verb}")
    if verb in SECTIONS["This project"] or verb in SECTIONS["Runs"]:
        assert "--project DIR" in said or verb == "cancel"
        assert "--json" in said


def test_version(cli: Command) -> None:
    assert cli("--version").out == f"claude-scheduler, version {scheduler.__version__}\n"


@pytest.mark.parametrize("words", [["nonsense"], ["list", "--nonsense"], ["show"], ["next", "--count", "x"], ["--x"]])
def test_wrong_usage_is_code_2(cli: Command, words: list[str]) -> None:
    said = cli(*words, code=2)
    assert said.out == "" and "Usage:" in said.err


def test_what_cannot_be_done_is_two_lines_and_code_1(cli: Command) -> None:
    assert cli("check", code=1).err == f"error: no tasks in {cli.folder}\n  make one with 'add'\n"


def test_no_home_is_told(cli: Command) -> None:
    del cli.env["HOME"], cli.env["SCHEDULER_HOME"]
    assert cli("list", code=1).err == "error: HOME is not set\n  set HOME to your home folder\n"
    cli("--version")
    cli("--help")


def test_a_disk_error_is_told(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the place of the folder")
    said = cli("add", "a", "--every", "4h", "--shell", "x", code=1)
    assert said.err.startswith("error: ") and str(tmp_path / "state") in said.err


def test_a_bug_leaves_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCHEDULER_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MY_SECRET", "hunter2hunter2")
    try:
        raise KeyError("a bug")
    except KeyError as error:
        argv = ["scheduler", "add", "--env", "TOKEN=hunter2hunter2", "--env=B=hunter2hunter2", "x\x1b"]
        assert write_report(error, argv) == 3
    said = capsys.readouterr().err
    (report,) = (tmp_path / "state" / "reports").iterdir()
    assert "this is a bug: KeyError('a bug')" in said and str(report) in said
    text = report.read_text()
    assert "KeyError: 'a bug'" in text and "test_cli_main.py" in text and "Python 3." in text
    assert "'--env' 'TOKEN=...' '--env=B=...' 'x\\x1b'" in text
    assert "hunter2" not in text and report.stat().st_mode & 0o777 == 0o600


def test_a_bug_is_code_3(cli: Command, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); sys.argv = ['scheduler', 'list']\n"
        "from scheduler.cli import listing, main\n"
        "def broken(*_): raise RuntimeError('broken')\n"
        "listing.look = broken\n"
        "sys.exit(main.main())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], env=cli.env, cwd=cli.folder, capture_output=True, text=True
    )
    assert done.returncode == 3 and "this is a bug" in done.stderr and "Traceback" not in done.stderr
    assert len(list((tmp_path / "state" / "reports").iterdir())) == 1


def test_a_reader_that_leaves_is_no_error(cli: Command) -> None:
    cli("add", "a", "--every", "1s", "--shell", "x")
    argv = [sys.executable, "-I", str(PACKAGE), "next", "-n", "9999"]
    child = subprocess.Popen(
        argv, env=cli.env, cwd=cli.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    said = child.stderr.read()
    child.stderr.close()
    assert child.wait(30) == 0 and "Broken" not in said and "Traceback" not in said


def test_a_full_disk_under_the_answer_is_an_error(cli: Command) -> None:
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-I", str(PACKAGE), "list"]
        done = subprocess.run(argv, env=cli.env, cwd=cli.folder, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "No space left on device" in done.stderr and "Traceback" not in done.stderr


def test_an_interrupt_is_code_130(cli: Command, repo: Path) -> None:
    cli("add", "a", "--every", "4h", "--shell", "x")
    terminal = pexpect.spawn(
        sys.executable,
        ["-I", str(PACKAGE), "enable", "--no-start"],
        cwd=repo,
        env=cli.env,
        timeout=30,
        encoding="utf-8",
    )
    terminal.expect(r"\[y/N\]")
    terminal.sendintr()
    terminal.expect("interrupted")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert (terminal.exitstatus, terminal.signalstatus) == (130, None) or terminal.signalstatus == signal.SIGINT


def spawn(cli: Command, *words: str, columns: int = 80, **env: str) -> str:
    """What a call shows on a terminal."""
    terminal = pexpect.spawn(
        sys.executable, ["-I", str(PACKAGE), *words], cwd=cli.folder, env={**cli.env, "TERM": "xterm-256color", **env},
        timeout=30, dimensions=(24, columns), encoding="utf-8",
    )  # fmt: skip
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    return str(terminal.before)


def test_a_table_fits_the_terminal_and_nothing_is_lost(cli: Command) -> None:
    cli(
        "add",
        "A name that is rather long for a narrow terminal",
        "--id",
        "x",
        "--cron",
        "*/7 9-17 * * 1-5",
        "--shell",
        "y",
    )
    for columns in (50, 80, 200):
        shown = spawn(cli, "list", columns=columns, NO_COLOR="1")
        assert max(map(len, shown.splitlines())) <= columns
        assert "terminal" in shown and "Friday" in shown
    piped = cli("list").out
    assert "A name that is rather long for a narrow terminal" in piped


def test_colour_is_for_terminals_that_want_it(cli: Command) -> None:
    cli("add", "a", "--every", "4h", "--shell", "x")
    assert "\x1b[" in spawn(cli, "list")
    assert "\x1b[" not in spawn(cli, "list", NO_COLOR="1")
    assert "\x1b[" not in spawn(cli, "show", "a", NO_COLOR="1")
    assert "\x1b[" not in cli("list").out + cli("check", "--project", "/", code=1).err


def test_what_cannot_be_encoded_does_not_stop_the_answer(cli: Command) -> None:
    cli("add", "Grüße 日本", "--id", "x", "--every", "4h", "--shell", "y")
    assert "x " in cli("list", LANG="C", LC_ALL="C", PYTHONCOERCECLOCALE="0").out


def test_the_schema_is_printed_as_it_is_shipped(cli: Command) -> None:
    assert cli("schema").json == config_schema()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_lines(cli: Command, shell: str) -> None:
    assert "_CLAUDE_SCHEDULER_COMPLETE" in cli("completion", shell).out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_lines_ask_the_file_that_was_called(cli: Command, tmp_path: Path, shell: str) -> None:
    """An alias is no command that a completion function could call."""
    launcher = tmp_path / "a folder" / "scheduler"
    said = cli("completion", shell, SCHEDULER_LAUNCHER=str(launcher)).out
    assert said.count(f"'{launcher}')") == 1 and "$+commands" not in said and "claude-scheduler" not in said


def test_bash_completes_an_alias(cli: Command, tmp_path: Path) -> None:
    launcher = tmp_path / "a folder" / "scheduler"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{PACKAGE}" "$@"\n')
    launcher.chmod(0o755)
    lines = cli("completion", "bash", SCHEDULER_LAUNCHER=str(launcher)).out
    asked = "complete -p scheduler; COMP_WORDS=(scheduler che); COMP_CWORD=1; _scheduler_completion scheduler"
    script = f'{lines}\n{asked}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "--norc", "-c", script], cwd=cli.folder, env=cli.env, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["complete -o nosort -F _scheduler_completion scheduler", "check"], done.stderr


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("claude-scheduler che", {"check"}),
        ("claude-scheduler show ni", {"nightly"}),
        ("claude-scheduler list --al", {"--all"}),
    ],
)
def test_completion_knows_verbs_options_and_tasks(cli: Command, words: str, found: set[str]) -> None:
    cli("add", "Nightly", "--every", "4h", "--shell", "x")
    at = str(len(words.split()) - 1)
    said = cli(code=None, _CLAUDE_SCHEDULER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=at)
    assert {line.partition(",")[2] for line in said.out.splitlines()} == found


def test_looking_makes_nothing(cli: Command, tmp_path: Path, repo: Path) -> None:
    for words in (["list"], ["status"], ["history"], ["--help"]):
        cli(*words)
    assert not (tmp_path / "state").exists() and not (repo / ".omc").exists()
    assert os.listdir(cli.env["HOME"]) == [".gitconfig"]
