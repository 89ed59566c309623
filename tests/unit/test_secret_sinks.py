"""H4 and H9: what the runner's log, the hooks' log, a bug report and the log of a run keep, and what they leave out."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timezone
from pathlib import Path

import pytest

from scheduler.cli import report
from scheduler.core.plain import Lines
from scheduler.core.record import Record, RunnerMark, Status
from scheduler.core.redact import Redactor, Span
from scheduler.execution.runlog import RunLog
from scheduler.hooks import wire
from scheduler.runner import journal
from tests.samples import SHAPED, some

NOW = datetime(2026, 11, 26, tzinfo=timezone.utc)
VALUE = "correct-horse-battery"
TOKEN = SHAPED[0][1]


class Breaking(Redactor):
    """Fails on what it is told to."""

    def spans(self, text: str) -> list[Span]:
        if "break" in text:
            raise RecursionError(text)
        return super().spans(text)


def test_h4_a_bug_report_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DEPLOY_TOKEN", VALUE)
    try:
        raise KeyError(f"{VALUE} {TOKEN}")
    except KeyError as error:
        assert report.write_report(error, ["scheduler", f"add {VALUE}", f"--prompt=use {TOKEN}"]) == report.EXIT
    (written,) = (tmp_path / "state" / "reports").iterdir()
    text = written.read_text()
    assert "KeyError" in text and text.count("[REDACTED:") >= 4
    assert VALUE not in text and TOKEN not in text


def test_h4_the_runners_log_holds_no_secret_of_a_traceback() -> None:
    words = journal.Words(Redactor([VALUE]).text)
    try:
        raise ValueError(f"no {VALUE}")
    except ValueError as error:
        record = logging.LogRecord("scheduler", logging.ERROR, "", 1, f"with {TOKEN}", (), (ValueError, error, None))
    told = words.format(record)
    assert "with [REDACTED:anthropic-key]" in told and "ValueError: no [REDACTED:known]" in told


def test_h9_a_line_of_the_runners_log_that_cannot_be_redacted_is_dropped_and_counted() -> None:
    def fails(text: str) -> str:
        raise RecursionError(text)

    words = journal.Words(fails)
    record = logging.LogRecord("scheduler", logging.ERROR, "", 1, f"with {TOKEN}", (), None)
    assert [words.format(record).split(" ERROR ")[1] for _ in range(2)] == [
        f"a line was left out that could not be redacted ({count})" for count in (1, 2)
    ]


def test_h4_the_hooks_log_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", VALUE)
    assert wire._told(ValueError(f"not {VALUE} or {TOKEN} here")) == "not ... or ... here"
    assert wire._told(FileNotFoundError(2, "No such file or directory", f"/x/{VALUE}")) == "No such file or directory"
    assert wire._told(ValueError("the event names no file")) == "the event names no file"


def test_h9_the_lines_that_a_run_lost_are_counted_and_told(tmp_path: Path) -> None:
    record = Record(
        id="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        task_id="job",
        task_name="job",
        project=str(tmp_path),
        started_at=NOW,
        status=Status.RUNNING,
        triggered_by="manual",
        runner=RunnerMark(host="here", pid=1, version="0"),
    )
    secret = some(24)

    async def go() -> RunLog:
        log = RunLog(record, lambda: NOW, Breaking([]))
        log.open(Lines(), Lines(), flood=False)
        log.feed("stdout", f"one\nbreak {secret}\ntwo\n".encode())
        log.feed("stderr", f"break {secret}\nthree\n".encode())
        log.end()
        log.close()
        return log

    log = asyncio.run(go())
    assert log.troubles == ["the log is not complete: 2 lines were left out, as they could not be freed of secrets"]
    assert log.tail() == "one\ntwo\nthree"
    kept = "".join(path.read_text() for path in (tmp_path / ".omc" / "scheduler" / "logs").iterdir())
    assert secret not in kept and "] one\n" in kept and "] three\n" in kept
