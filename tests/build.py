"""The runner as a test build: `python tests/build.py` is `scheduler runner`, but for two things that the product lacks.

SCHEDULER_CRASH_AT=STEP kills it by SIGKILL at a step of a run; `STEP:2` when it comes there for the second time.
SCHEDULER_CLOCK=FILE gives it a clock of the test's (`Clock`). The steps are wrapped from outside, so that the product
holds no way to crash it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.rig import Rig

SCRIPT = Path(__file__).resolve()
ALWAYS: Callable[..., bool] = lambda *args, **named: True  # noqa: E731


def _phase(name: str) -> Callable[..., bool]:
    return lambda *args, phase=None, **named: phase == name


@dataclass(frozen=True)
class Step:
    """Before or after a call of `function` (of a module or class below `scheduler.`) that `when` says yes to."""

    function: str
    after: bool = True
    when: Callable[..., bool] = ALWAYS


#: In the order in which a run comes to them.
STEPS: Mapping[str, Step] = {
    "due": Step("store.state:State.claim", after=False),
    "claimed": Step("store.state:State.claim"),
    "planned": Step("execution.isolated:Isolated.plan"),
    "begun": Step("store.state:State.update_run", when=_phase("running")),
    "start half on record": Step("store.history:append_lines", when=lambda *args, durable=False: not durable),
    "start on record": Step("store.history:append", when=lambda where, record, *done: record.completed_at is None),
    "branch made": Step("execution.worktree:make_branch_held"),
    "worktree registered": Step("execution.worktree:_register"),
    "checked out": Step("execution.worktree:_check_out"),
    "worktree made": Step("execution.worktree:create"),
    "agent started": Step("store.state:State.update_run", when=lambda *args, process=None, **named: process),
    "agent ended": Step("execution.steps:_judge_shell", after=False),
    "judged": Step("execution.steps:_judge_shell"),
    "client ended": Step("execution.steps:judge_claude", after=False),
    "client judged": Step("execution.steps:judge_claude"),
    "committed": Step("execution.work:keep"),
    "contained": Step("execution.isolated:Isolated.contain"),
    "not yet ended": Step("store.state:State.update_run", after=False, when=_phase("ended")),
    "ended": Step("store.state:State.update_run", when=_phase("ended")),
    "pushed": Step("execution.branches:push"),
    "saved": Step("execution.rollback:_save"),
    "worktree removed": Step("execution.worktree:remove_held"),
    "branch dropped": Step("execution.worktree:drop_branch"),
    "settled": Step("execution.aftermath:settle"),
    "end half on record": Step("store.history:append_lines", when=lambda *args, durable=False: durable),
    "end on record": Step("store.history:append", when=lambda where, record, *done: record.completed_at is not None),
    "forgotten": Step("store.state:State.finish"),
    "swept": Step("execution.aftermath:empty_trash"),
    # Of the runner that finds what another left.
    "history completed": Step("runner.recovery:_complete_history"),
    "recovered": Step("execution.aftermath:recover"),
    "scratch cleared": Step("execution.aftermath:clear_scratch"),
}


class Clock:
    """A file with a moment, a reading of the monotonic clock, and a rate: seconds of the one for each of the other."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self) -> datetime:
        moment, then, rate = map(float, self.file.read_text().split())
        return datetime.fromtimestamp(moment + (time.monotonic() - then) * rate, timezone.utc)

    def set(self, moment: datetime, rate: float) -> None:
        """Go on from `moment` at so many seconds a second; 0 stands still."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{moment.timestamp()!r} {time.monotonic()!r} {rate!r}")
        new.rename(self.file)

    def jump(self, by: timedelta, rate: float) -> None:
        """Go on from a moment so much later, or earlier."""
        self.set(self() + by, rate)


def spawn(own: Rig, crash_at: str | None = None, clock: Clock | None = None) -> int:
    """Start the test build for a rig, detached as the runner is; its pid. It may die before it answers."""
    from scheduler.disk import files
    from scheduler.execution import process

    files.make_folder(own.paths.state)
    given = {"SCHEDULER_CRASH_AT": crash_at, "SCHEDULER_CLOCK": None if clock is None else str(clock.file)}
    env = {**own.env, **{name: value for name, value in given.items() if value is not None}}
    argv = [sys.executable, "-I", str(SCRIPT)]
    return own.started(process.spawn_detached(argv, env=env, log=Path(own.paths.runner_log)))


def _wrap(step: Step, times: int) -> None:
    """Kill this process at the step."""
    import importlib

    place, _, names = step.function.partition(":")
    owner: Any = importlib.import_module(f"scheduler.{place}")
    *outer, name = names.split(".")
    for each in outer:
        owner = getattr(owner, each)
    original = getattr(owner, name)
    left = times

    def die(*args: Any, **named: Any) -> None:
        nonlocal left
        left -= bool(step.when(*args, **named))
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def sync(*args: Any, **named: Any) -> Any:
        if not step.after:
            die(*args, **named)
        given = original(*args, **named)
        if step.after:
            die(*args, **named)
        return given

    async def later(*args: Any, **named: Any) -> Any:
        given = await original(*args, **named)
        die(*args, **named)
        return given

    wrapped = later if original.__code__.co_flags & 0x80 else sync
    for module in [owner, *(found for known, found in sys.modules.items() if known.startswith("scheduler."))]:
        if getattr(module, name, None) is original:
            setattr(module, name, wrapped)


def main() -> int:
    """Be the runner."""
    sys.path.insert(0, str(SCRIPT.parents[1]))
    from scheduler.runner import loop

    env = dict(os.environ)
    crash_at, clock = env.pop("SCHEDULER_CRASH_AT", None), env.pop("SCHEDULER_CLOCK", None)
    if crash_at is not None:
        name, _, times = crash_at.partition(":")
        _wrap(STEPS[name], int(times or 1))
    if clock is None:
        return loop.main(env)
    from scheduler.execution import steps
    from scheduler.runner import ledger

    # Its seconds are worth more.
    loop.POLL, loop.IDLE_EXIT, ledger.AGAIN, steps.AGAIN = 0.05, 0.5, 0.5, 0.5
    return loop.main(env, Clock(Path(clock)))


if __name__ == "__main__":
    raise SystemExit(main())
