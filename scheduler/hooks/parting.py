"""What SessionEnd does: where tasks wait with nobody to run them, it tells the user, in three ways since none is sure.

Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import os

from scheduler.disk import glance, switch
from scheduler.disk.paths import Paths
from scheduler.hooks import greeting, place, seen, tasks, terminal, wake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

AGAIN = 86400  # s
STARTING = 30  # s; a runner that was started less long ago may be about to come up


def answer(event: dict[str, Any], env: Mapping[str, str], now: float) -> dict[str, Any] | None:
    """A notification for the terminal, or None. Leaves a process behind that writes a line when the client has gone."""
    unseen = env.get("SCHEDULER_RUN_ID") or env.get("CLAUDE_CODE_ENTRYPOINT", "").startswith("sdk")
    if unseen or event.get("reason") in ("clear", "resume"):  # nobody is there, or the user stays
        return None
    where = place.of_event(event, env)
    if where is None:
        return None
    paths = Paths(env)
    if switch.look(paths.off_switch, now) is not None:  # meant so
        return None
    entry = (glance.read(paths.glance, where.project) or {}).get("projects", {}).get(where.project, {})
    enabled = bool(entry.get("enabled"))
    if enabled and (not entry.get("active") or wake.is_alive(paths)):
        return None
    memory = seen.load(paths, where.project)
    if 0 <= now - greeting.number(memory, "reminded") < AGAIN:
        return None
    if enabled and 0 <= now - greeting.number(memory, "woken") < STARTING:
        return None
    waiting, remind = tasks.wanted(where.project)
    if not waiting or not remind:
        return None
    waiting = int(greeting.number(entry, "active")) if enabled else waiting
    seen.save(paths, where.project, {**memory, "reminded": now, "waiting": waiting}, memory)
    said = words(greeting.plain(os.path.basename(where.project), 60), waiting, enabled=enabled)
    client = os.getppid()
    wake.detach(lambda: terminal.say_after(client, said))
    return {"terminalSequence": f"\x1b]9;{said}\x07"}


def words(project: str, waiting: int, *, enabled: bool) -> str:
    """The line itself."""
    count = "1 task" if waiting == 1 else f"{waiting} tasks"
    if enabled:
        return (
            f"Scheduler: {count} of {project} cannot run, its runner has stopped. Opening Claude Code there starts it."
        )
    return f"Scheduler: {count} of {project} not enabled, so nothing runs. In Claude Code: /scheduler:enable"
