"""A bug's report: what was called, where it broke, with which versions; no value of the environment, no secret."""

from __future__ import annotations

import os
import platform
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime

import click

from scheduler import __version__
from scheduler.core.plain import plain
from scheduler.core.redact import Redactor, known_values
from scheduler.disk import files
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError

EXIT = 3


def write_report(error: Exception, argv: Sequence[str]) -> int:
    """Put the report into a file and print its path; the exit code of a bug."""
    clean = Redactor(known_values(os.environ, {})).text
    text = clean(plain(_report(error, argv)))
    click.echo(f"error: this is a bug: {clean(ascii(error))[:300]}", err=True)
    try:
        name = f"report-{datetime.now():%Y%m%dT%H%M%S}-{os.getpid()}.txt"
        path = os.path.join(Paths(os.environ).reports, name)
        files.write_atomic(path, text.encode("utf-8", "replace"))
        click.echo(f"  the report is in {path}; please send it to us", err=True)
    except (OSError, SchedulerError) as cannot:
        click.echo(f"  the report could not be written: {cannot}\n{text}", err=True)
    return EXIT


def _report(error: Exception, argv: Sequence[str]) -> str:
    lines = [
        f"claude-scheduler {__version__}",
        f"Python {sys.version}",
        f"{platform.platform()}",
        f"command: {' '.join(map(ascii, _without_values(argv)))}",
        "",
        *traceback.format_exception(error),
    ]
    return "\n".join(line.rstrip("\n") for line in lines) + "\n"


def _without_values(argv: Sequence[str]) -> list[str]:
    """The words of a call, those that follow `--env` without their values."""
    shown = []
    for before, word in zip(["", *argv], argv, strict=False):
        if before == "--env" or word.startswith("--env="):
            head, _, _ = word.removeprefix("--env=").partition("=")
            word = f"{'--env=' if word.startswith('--env=') else ''}{head}=..."
        shown.append(word)
    return shown
