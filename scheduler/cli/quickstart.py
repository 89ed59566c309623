"""`quickstart`: the main job end to end, in a throw-away repository with a runner of its own, told as it happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from scheduler.cli import quickstart_watch as watch
from scheduler.cli.context import Context
from scheduler.core.models import iso
from scheduler.disk import files
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import claude, process
from scheduler.runner import control
from scheduler.store import config, trust

FIRST_DUE = 3  # seconds from now; the others follow a second apart
PATIENCE = 60.0  # seconds for all three runs; a run by the real client gets more
CLIENT_PATIENCE = 300.0
STOP_PATIENCE = 20.0

NOTES = "# Notes\n\n- first line\n"
TIDY = "echo 'adding a line to NOTES.md' && echo '- written by a scheduled task' >> NOTES.md"
TIDY_PROMPT = "Append the line '- written by a scheduled task' to NOTES.md, then stop."
BREAK = "echo 'changing NOTES.md, then failing' && echo 'half done' > NOTES.md && echo draft > draft.txt && exit 1"
STUCK = (
    "echo 'unfinished' > unfinished.txt; "
    'sh -c \'trap "" TERM; echo "grandchild $$ ignores SIGTERM"; while :; do sleep 1; done\' & '
    "wait"
)


@click.command()
@click.option("--keep", is_flag=True, help="Keep the repository, to look around in it.")
@click.option("--claude", "with_client", is_flag=True, help="Let the real Claude Code client do the first task.")
@click.pass_obj
def quickstart(context: Context, keep: bool, with_client: bool) -> None:
    """See the main job work: three scheduled tasks in a throw-away repository.

    One edits a file and succeeds, one fails, one hangs. Takes under twenty seconds and leaves nothing behind; your own
    tasks and settings are not touched.
    """
    client = claude.find_client(context.env.get("PATH", "")) if with_client else None
    if with_client and client is None:
        raise SchedulerError("no claude client was found on the PATH", "install Claude Code, or leave out --claude")
    with _throw_away(context, keep) as (folder, env):
        repository = _repository(folder / "repository", env)
        own = Paths(env)
        due = datetime.now().astimezone().replace(microsecond=0) + timedelta(seconds=FIRST_DUE)
        _enable(own, repository, _tasks(due, client is not None), env, client)
        _commit(repository, env, "Schedule three tasks")
        click.echo(f"A throw-away repository: {repository}")
        runner = control.ensure_runner(own, env)
        click.echo(f"A detached runner serves it: pid {runner['pid']}, parent {_parent(runner['pid'])}.\n")
        records = watch.follow(own, str(repository), CLIENT_PATIENCE if client else PATIENCE)
        _show(repository, env, records)
    _next_steps(repository if keep else None)


@contextmanager
def _throw_away(context: Context, keep: bool) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder for repository, config and state, and the environment that points there. Its runner ends with it."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="claude-scheduler-quickstart-")))
    state = folder / "state"
    env = {**context.env, "SCHEDULER_HOME": str(state)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        yield folder, env
    finally:
        _stop_runner(Paths(env))
        shutil.rmtree(state if keep else folder, ignore_errors=True)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _stop_runner(own: Paths) -> None:
    answer = control.request(own, {"verb": "status"})
    if answer is None:
        return
    started = process.start_time(answer["pid"])
    control.request(own, {"verb": "stop", "now": True})
    end = time.monotonic() + STOP_PATIENCE
    while started is not None and process.is_alive(answer["pid"], started):
        if time.monotonic() > end:
            raise SchedulerError(f"the runner does not end: pid {answer['pid']}", f"run: kill {answer['pid']}")
        time.sleep(0.02)


def _repository(folder: Path, env: Mapping[str, str]) -> Path:
    folder.mkdir()
    (folder / "NOTES.md").write_text(NOTES)
    process.run(["git", "init", "-q", "-b", "main"], cwd=folder, env=_git_env(env), timeout=60)
    _commit(folder, env, "First commit")
    return folder


def _commit(folder: Path, env: Mapping[str, str], message: str) -> None:
    identity = ["-c", "user.name=Quickstart", "-c", "user.email=quickstart@localhost", "-c", "commit.gpgsign=false"]
    for words in (["add", "-A"], [*identity, "commit", "-q", "-m", message]):
        process.run(["git", *words], cwd=folder, env=_git_env(env), timeout=60)


def _git_env(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith("GIT_")}


def _tasks(due: datetime, with_client: bool) -> list[dict[str, Any]]:
    first = {"type": "claude", "command": TIDY_PROMPT, "timeout": "4m"} if with_client else _shell(TIDY, 60)
    executions = {"tidy": first, "break": _shell(BREAK, 60), "stuck": _shell(STUCK, 2)}
    return [
        {
            "id": name,
            "name": {"tidy": "Edit a file", "break": "Edit files, then fail", "stuck": "Hang"}[name],
            "trigger": {"type": "once", "at": iso(due + timedelta(seconds=number))},
            "execution": execution,
        }
        for number, (name, execution) in enumerate(executions.items())
    ]


def _shell(command: str, timeout: int) -> dict[str, Any]:
    return {"type": "shell", "command": command, "timeout": timeout}


def _enable(
    own: Paths, repository: Path, tasks: list[dict[str, Any]], env: Mapping[str, str], client: Path | None
) -> None:
    """What `add` and `enable` do for a repository of one's own, without the questions: we wrote these tasks."""
    root = str(repository)
    files.make_folder(own.state)
    files.write_atomic(own.settings, json.dumps({"maxConcurrent": 3}).encode())
    source = config.edited(None, root, lambda raw: raw.extend(tasks))
    config.write(source, None)
    at = iso(datetime.now().astimezone())
    known = {root: trust.Project(root, True, env.get("PATH", ""), str(client) if client else None, at)}
    with trust.lock(own):
        trust.write(own, trust.approved(known, source, at))


def _parent(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return "1"


def _show(repository: Path, env: Mapping[str, str], records: Mapping[str, dict[str, Any]]) -> None:
    """The history, what was kept and what was rolled back, by the commands that a user would type."""
    click.echo()
    _command("What is on record:", ["history"], repository, env)
    kept = records["tidy"]
    if kept.get("commit"):
        _command("What was kept, on a branch for your review:", ["diff", kept["id"][:8]], repository, env)
    ref = records["break"].get("discardedRef")
    if ref:
        _said("What was rolled back, kept under a private ref:", f"git show --stat {ref}")
        click.echo(_git(repository, env, "show", "--stat", "--format=%h %s", ref))
    _said("Your checkout, untouched:", "git status --short && git log --oneline")
    click.echo(_git(repository, env, "status", "--short") + _git(repository, env, "log", "--oneline"))


def _git(repository: Path, env: Mapping[str, str], *words: str) -> str:
    done = process.run(["git", "--no-pager", *words], cwd=repository, env=_git_env(env), timeout=60)
    return done.stdout.decode("utf-8", "replace")


def _command(title: str, words: list[str], repository: Path, env: Mapping[str, str]) -> None:
    _said(title, f"scheduler {' '.join(words)}")
    from scheduler.cli.main import main  # which imports this module

    before = os.getcwd()
    os.environ.update(SCHEDULER_HOME=env["SCHEDULER_HOME"], PAGER="cat")  # all of it on one screen
    os.chdir(repository)
    try:
        main(words)  # in this process, so that it knows the terminal
    finally:
        os.chdir(before)
    click.echo()


def _said(title: str, command: str) -> None:
    click.secho(title, bold=True)
    click.echo(f"$ {command}")


def _next_steps(kept: Path | None) -> None:
    if kept is not None:
        click.echo(f"The repository is kept: {kept} (remove it with: rm -r {kept.parent})")
    click.secho("In a repository of your own:", bold=True)
    for line in (
        'scheduler add "Update dependencies" --cron "0 2 * * 1-5" --prompt "Update the dependencies, run the tests."',
        "scheduler enable     # shows exactly what will run, and asks",
        "scheduler status     # what comes, what ran, what needs you",
    ):
        click.echo(f"  {line}")
