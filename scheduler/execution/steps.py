"""The processes of one run, one after the other: set-up, precheck, the agent, verify; one deadline, one log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from scheduler.core.models import Task, UserSettings
from scheduler.core.plain import Lines
from scheduler.core.record import Reason, Record, Status
from scheduler.core.redact import Redactor
from scheduler.core.report import AgentReport
from scheduler.core.verdict import Verdict, judge_claude, judge_shell
from scheduler.disk.paths import Paths
from scheduler.execution import agent, claude, git, sandbox, session, trace
from scheduler.execution.environment import build_environment
from scheduler.execution.inside import evidence_folder
from scheduler.execution.runlog import RunLog
from scheduler.execution.stream import ResultReader
from scheduler.execution.worktree import Worktree
from scheduler.store.database import NotWritten

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
# Seconds between SIGINT and SIGTERM for a client: on the one it ends its tools and says what it cost, on the other not.
FAREWELL = 5.0
AGAIN = 5.0  # seconds between tries to write down how far a run is
SHELL = "/bin/sh"
_HIDDEN = 'hidden=$SCHEDULER_COMMAND; unset SCHEDULER_COMMAND; eval "unset hidden; $hidden"'
log = logging.getLogger("scheduler")


@dataclass(frozen=True)
class Order:
    """A run that is to be carried out: its running record (that of a client has a session id when its steps begin), the
    approved task and rules, and what `enable` recorded. `redactor` knows the secrets of the runner's environment and of
    the config. `place`: where it was, if it goes on after a usage limit; then the record tells what it took so far."""

    record: Record
    task: Task
    rules: str | None
    path: str
    client: str | None
    redactor: Redactor
    place: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Workshop:
    """What every run uses. `update` writes down how far a run is (State.update_run)."""

    paths: Paths
    pool: agent.SupervisorPool
    env: Mapping[str, str]
    now: Callable[[], datetime]
    update: Callable[..., None]
    settings: UserSettings = field(default_factory=UserSettings)

    async def write_down(self, run_id: str, cancel: asyncio.Event, **what: Any) -> None:
        """`update` before a step that must not be made without it: waits until it can be written, raises NotWritten
        where the run is cancelled meanwhile."""
        while True:
            try:
                return self.update(run_id, **what)
            except NotWritten as error:
                log.error("run %s waits: %s", run_id, error.message)
                if cancel.is_set():
                    raise
                await asyncio.sleep(AGAIN)

    def with_settings(self, settings: UserSettings) -> Workshop:
        """The same with the user's settings of this moment."""
        return replace(self, settings=settings)


@dataclass(frozen=True)
class Ended:
    """How the agent ended, and what its client said of it."""

    verdict: Verdict
    exit_code: int | None
    report: AgentReport | None = None


class Steps:
    """Starts the processes of one run in `folder`. Their time together is the task's `timeout`."""

    def __init__(self, order: Order, shop: Workshop, folder: Path, scratch: Path, cancel: asyncio.Event) -> None:
        self._order = order
        self._shop = shop
        self._folder = folder
        self._scratch = scratch
        self._room: sandbox.Room | None = None
        self._wrap: tuple[str, ...] = ()
        self._cancel = cancel
        used = (order.record.duration or 0) / 1000
        self._deadline = asyncio.get_running_loop().time() + order.task.execution.timeout - used
        self.env = _environment(order, shop, scratch)
        self.redactor = order.redactor
        self.log = RunLog(order.record, shop.now, self.redactor)

    async def shut_in(self, project: git.Project, tree: Worktree | None) -> tuple[str, ...]:
        """Have all processes that follow in the sandbox that the task asks for; the words that go before a command line
        (none where it asks for none). SandboxMissing where it cannot be had."""
        execution, places = self._order.task.execution, self._shop.paths
        if execution.sandbox is None:
            return ()
        client = claude.find_client(self._order.path, self._order.client) if execution.type == "claude" else None
        program = None if client is None else str(client)
        room = sandbox.Room(project, places, self._scratch, self.env, tree, program, execution.sandbox_write)
        self._wrap = await asyncio.to_thread(sandbox.enter, room)
        self._room = room
        self.env = {**self.env, **sandbox.environment(room)}
        return self._wrap

    async def shell(self, label: str, command: str) -> agent.Outcome:
        """One of the task's own commands, in the run's folder; what it says goes to the logs, under `label`."""
        self.log.say(f"{label}: {command.splitlines()[0]}")
        self.log.open(Lines(), Lines(), flood=True)
        try:
            outcome = await self._process(*self._shell(command), b"", self.log.feed)
            await self.log.settle()
            return outcome
        finally:
            self.log.end()

    def unless_passed(self, outcome: agent.Outcome, label: str, reason: Reason) -> Ended | None:
        """How the run ends where one of its own commands did not end with exit code 0; None where it did."""
        if outcome.stopped is None and outcome.returncode == 0:
            return None
        verdict = _judge_shell(outcome)
        if outcome.stopped is None:
            verdict = Verdict(Status.FAILURE, reason, f"{label}: {verdict.error}")
        return Ended(verdict, outcome.returncode)

    async def perform(self) -> Ended:
        """The task itself: its shell command, or the client with its prompt."""
        execution = self._order.task.execution
        if execution.type == "shell":
            outcome = await self.shell("run", execution.command)
            return Ended(
                _judge_shell(outcome),
                outcome.returncode,
            )
        return await self._client()

    async def _client(self) -> Ended:
        execution = self._order.task.execution
        binary = claude.find_client(self._order.path, self._order.client)
        if binary is None:
            said = "the claude client is not where it was at 'enable'; install it, then 'enable' again"
            return Ended(Verdict(Status.FAILURE, Reason.CLIENT_MISSING, said), None)
        argv = claude.build_argv(
            binary,
            execution,
            session_id=str(self._order.record.session_id),
            resume=self._order.place is not None,
            settings=claude.hook_settings(self._hook()),
        )
        prompt = claude.build_prompt(self._order.rules, execution.command)
        if self._order.place is not None:
            prompt = claude.GO_ON
        self.log.say(f"run: {os.path.basename(argv[0])} {' '.join(argv[1:6])}")
        reader = ResultReader(self.redactor.text)
        self.log.open(reader, Lines(), flood=False)

        def sink(name: str, data: bytes) -> bool:
            self.log.feed(name, data)
            return name == "stderr" or reader.got_on

        try:
            outcome = await self._process(argv, self.env, prompt, sink, FAREWELL)
        finally:
            self.log.end()
        if self._room is not None:
            await asyncio.to_thread(sandbox.bring_in_changes, self._room, self._order.record.id)
        report = reader.report()
        if outcome.stopped is not None or not report.has_result:
            noted = await asyncio.to_thread(session.cost, self._shop.paths.claude, str(self._order.record.session_id))
            report = replace(report, session_usd=noted)
        verdict = judge_claude(
            report,
            outcome.returncode,
            outcome.signal,
            outcome.stopped,
            detail=outcome.detail,
            on_denied=self._order.task.policy.on_denied,
            last_words=self.log.last_error,
        )
        return Ended(verdict, outcome.returncode, report)

    def _hook(self) -> Sequence[str]:
        return [sys.executable, "-I", "-S", str(Path(__file__).resolve().parent.parent / "hooks" / "post_tool_use.py")]

    def _shell(self, command: str) -> tuple[list[str], dict[str, str]]:
        """How a command is called, and in which environment. Everybody may see command lines, so one that holds a
        secret stays out of its own."""
        if not self.redactor.find(command):
            return [SHELL, "-c", command], self.env
        return [SHELL, "-c", _HIDDEN], {**self.env, "SCHEDULER_COMMAND": command}

    async def _process(
        self, argv: Sequence[str], env: Mapping[str, str], stdin: bytes, sink: agent.Sink, farewell: float = 0.0
    ) -> agent.Outcome:
        whole = [*self._wrap, *argv]
        left = max(self._deadline - asyncio.get_running_loop().time(), 0.001)
        outcome = await agent.carry_out(
            self._shop.pool,
            agent.AgentSpec(whole, self._folder, env, stdin, GRACE, farewell, wrapped=bool(self._wrap)),
            agent.Limits(left, self._order.task.execution.stall_timeout),
            sink,
            self._cancel,
            self._started,
        )
        if outcome.stopped == "timeout":  # the limit that the task names, not what was left of it
            limit = self._order.task.execution.timeout
            return replace(outcome, detail=f"the run took longer than its timeout of {limit} s")
        return outcome

    def _started(self, started: agent.StartedAgent) -> None:
        process = {"pid": started.supervisor_pid, "started": started.supervisor_started}
        with contextlib.suppress(NotWritten):  # only a runner that comes after a crash would ask for it
            self._shop.update(self._order.record.id, process=process)


def _environment(order: Order, shop: Workshop, scratch: Path) -> dict[str, str]:
    record = order.record
    return build_environment(
        shop.env,
        path=order.path,
        env_pass=shop.settings.env_pass,
        task_env=order.task.execution.env,
        run={
            "SCHEDULER_RUN_ID": record.id,
            "SCHEDULER_TASK_ID": record.task_id,
            "SCHEDULER_PROJECT": record.project,
        },
        # Tells which git commands of the run acted on the main checkout, or on git's settings.
        extra=trace.environment(evidence_folder(scratch)),
    )


def _judge_shell(outcome: agent.Outcome) -> Verdict:
    return judge_shell(outcome.returncode, outcome.signal, outcome.stopped, detail=outcome.detail)
