"""What may happen to the clock of a process that lives for months: it is put back, to another zone, or was not set."""

from __future__ import annotations

import logging
import time
from datetime import datetime

from scheduler.core import health
from scheduler.core.limits import CLOCK_SLACK
from scheduler.core.overdue import Absence
from scheduler.core.schedule import GRACE
from scheduler.runner.projects import Projects

log = logging.getLogger("scheduler")


def wall_clock() -> datetime:
    """The time, with the offset of the local zone."""
    return datetime.now().astimezone()


class ClockWatch:
    """`unset`: the clock shows a time before `built`, as one does that nobody has set. Nothing is looked at meanwhile:
    what was written down would be of a wrong time, and the state would take what is so for what a clock that was ahead
    has left."""

    def __init__(self, projects: Projects, now: datetime, elapsed: float, built: datetime) -> None:
        self._projects = projects
        self._looked = now
        self._elapsed = elapsed
        self._built = built
        self.unset = False

    def look(self, now: datetime, elapsed: float) -> None:
        """See how it is now. `elapsed`: seconds of a clock that nobody sets and that stands still in sleep."""
        if elapsed - self._elapsed > GRACE:
            log.warning("the runner was stopped, or held up, for %d s", elapsed - self._elapsed)
            self._projects.explain(Absence.HUNG)
        self._elapsed = elapsed
        time.tzset()  # else the system's zone stays what it was at the start
        if self._looked - now > CLOCK_SLACK:
            log.warning("the clock went back from %s to %s", self._looked, now)
            self._projects.forget_stamps()
        self._looked = now
        was, self.unset = self.unset, health.is_unset(now, self._built)
        if self.unset and not was:
            log.error("%s: nothing starts until it is set", health.unset_words(now))
        elif was and not self.unset:
            log.info("the clock is set: it shows %s", now)
            for served in self._projects.served.values():
                served.absent = Absence.CLOCK
