"""The command line: which verbs there are, where each is, and what becomes of an error.

Only the module of the verb that is called is imported. Exit codes: 0 done, 1 could not, 2 wrong usage, 3 a bug, 130
interrupted.
"""

from __future__ import annotations

import copy
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from scheduler import __version__
from scheduler.cli.context import Context, refuse_inside_run
from scheduler.errors import SchedulerError

COMPLETE_VAR = "_CLAUDE_SCHEDULER_COMPLETE"
INTERRUPTED = 130


class Verb(NamedTuple):
    """Where a verb's command is, as `module:name` below this room. One that `alters` is refused inside a run."""

    target: str
    summary: str
    alters: bool = False


SECTIONS: dict[str, dict[str, Verb]] = {
    "This project": {
        "enable": Verb("approve:enable", "Approve this project's tasks and let them run.", alters=True),
        "disable": Verb("approve:disable", "Stop running this project's tasks.", alters=True),
        "add": Verb("tasks:add", "Add a task.", alters=True),
        "edit": Verb("tasks:edit", "Change a task.", alters=True),
        "remove": Verb("tasks:remove", "Remove a task.", alters=True),
        "list": Verb("listing:list_tasks", "The tasks, when each runs next, how it ran last."),
        "show": Verb("listing:show", "All about one task, or one run."),
        "next": Verb("listing:next_runs", "The coming occurrences."),
        "check": Verb("listing:check", "Validate the config, and say which line is wrong."),
    },
    "Runs": {
        "run": Verb("runner:run", "Run a task now.", alters=True),
        "cancel": Verb("runner:cancel", "Stop a run, or take it off the queue.", alters=True),
        "retry": Verb("runner:retry", "Run again what a run was for.", alters=True),
        "result": Verb("runs:result", "The agent's closing answer."),
        "diff": Verb("runs:diff", "What a run changed."),
        "merge": Verb("runs:merge", "Merge a run's branch into the main checkout.", alters=True),
        "adopt": Verb("runs:adopt", "Make a branch of the work of a run that was rolled back.", alters=True),
        "discard": Verb("runs:discard", "Drop a run's work for good.", alters=True),
        "history": Verb("records:history", "What ran, and how it ended."),
        "stats": Verb("records:stats", "What the runs come to: how they ended, how long, what cost."),
        "logs": Verb("logs:logs", "What a task said."),
        "changes": Verb("changes:changes", "Which files tools changed, and what git saw beside that."),
    },
    "The runner": {
        "status": Verb("status:status", "What runs, what comes, what needs you."),
        "start": Verb("runner:start", "Start the runner.", alters=True),
        "stop": Verb("runner:stop", "Stop the runner, once what runs has ended.", alters=True),
        "pause": Verb("pauses:pause", "Start nothing of this project, or of one task, for a time.", alters=True),
        "resume": Verb("pauses:resume", "Let a paused project or task run again.", alters=True),
        "restart": Verb("runner:restart", "Stop the runner and start it again.", alters=True),
    },
    "More": {
        "doctor": Verb("doctor:doctor", "Look whether all is well, and say what mends what is not."),
        "service": Verb("service:service", "Keep the runner alive over reboots, by the operating system."),
        "prune": Verb("prune:prune", "Remove what is past its days; never work that is not saved.", alters=True),
        "import": Verb("takeover:take_over", "Take over another scheduler's tasks and history.", alters=True),
        "quickstart": Verb("quickstart:quickstart", "See it all work in a throw-away repository.", alters=True),
        "completion": Verb("completion:completion", "The lines that give your shell completion."),
    },
}
HIDDEN = {
    "answer": Verb("answer:answer", "Answer a slash command of the client's, for its hook."),
    "schema": Verb("completion:schema", "The JSON Schema of config.json."),
}
VERBS = {name: verb for section in SECTIONS.values() for name, verb in section.items()} | HIDDEN


class Verbs(click.Group):
    """The verbs of the table, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in VERBS if name not in HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module, name = verb.target.split(":")
        command: click.Command = getattr(importlib.import_module(f"scheduler.cli.{module}"), name)
        gc.enable()  # the start has switched it off
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        verb = VERBS.get(args[0])
        if verb is None or not verb.alters:
            return super().resolve_command(ctx, args)
        if not {"--help", "-h"}.intersection(args):
            refuse_inside_run(os.environ, args[0])
        name, command, rest = super().resolve_command(ctx, args)
        assert command is not None
        guarded, call = copy.copy(command), command.callback

        def unless_inside_a_run(*words: Any, **options: Any) -> Any:
            refuse_inside_run(os.environ, str(name))  # `--help` was the value of an option
            return call and call(*words, **options)

        guarded.callback = unless_inside_a_run
        return name, guarded, rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _hush()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, verb.summary) for name, verb in verbs.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="claude-scheduler")
def cli() -> None:
    """Recurring work for Claude Code, each run in a git worktree of its own, with a true history."""


def main(args: Sequence[str] | None = None, context: Context | None = None) -> int:
    """Run one verb and return the exit code. `context`: where it is not this process's own."""
    _have_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        name = "claude-scheduler" if os.path.basename(sys.argv[0]) == "claude-scheduler" else "scheduler"
        colour = False if os.environ.get("NO_COLOR") else None
        code = cli.main(args, name, COMPLETE_VAR, standalone_mode=False, obj=context or Context.current(), color=colour)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        return _hush()
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SchedulerError as error:
        return _told(error)
    except OSError as error:
        _flush_or_hush()
        place = f": {error.filename}" if error.filename else ""
        return _told(SchedulerError(f"{error.strerror or error}{place}", "mend this, then run the command again"))
    except Exception as error:
        if type(error).__module__ == "sqlite3":
            return _told(SchedulerError(f"the state could not be used: {error}", "try again; is the disk full?"))
        from scheduler.cli.report import write_report

        return write_report(error, sys.argv)


def _have_streams() -> None:
    """Where the caller closed a standard stream, whose place the next file would take: one that leads nowhere."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (spare := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(spare)
    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


def _hush() -> int:
    """Whoever read has what they wanted; nothing may be written at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _flush_or_hush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _hush()


def _told(error: SchedulerError) -> int:
    from scheduler.core.plain import plain

    colour = False if os.environ.get("NO_COLOR") else None
    click.secho("error:", fg="red", err=True, nl=False, color=colour)
    click.echo(f" {' '.join(plain(error.message).split())}", err=True)
    if error.hint:
        click.echo(f"  {' '.join(plain(error.hint).split())}", err=True)
    return error.exit_code
