"""What a hook needs of a project's config.json: how many tasks want to run, whether the user wants reminders, and
which content it is.

Only counted, never shown: nobody has approved what is in there. Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import os

from scheduler.disk import files, paths, tinyjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 4 << 20


def digest(project: str) -> str:
    """What an approval of the config and rules on disk would be of: as `store.config.Source.digest`. OSError or
    ValueError where they cannot be read."""
    total = _sha256()
    parts = [os.fsencode(project), files.read_bounded(paths.config_file(project), LIMIT), b"-"]
    try:
        parts[2] = b"+" + files.read_bounded(paths.rules_file(project), LIMIT)
    except FileNotFoundError:
        pass
    for part in parts:
        total.update(b"%d:" % len(part))
        total.update(part)
    return str(total.hexdigest())


def _sha256() -> Any:
    """A new SHA-256; `hashlib` costs more than all the rest of a hook."""
    for name in ("_sha2", "_sha256"):  # since Python 3.12, and before
        try:
            return __import__(name).sha256()
        except ImportError:
            pass
    import hashlib

    return hashlib.sha256()


def wanted(project: str) -> tuple[int, bool]:
    """(number of enabled tasks, `settings.remind`); (0, False) where the config is absent, broken or too large."""
    try:
        config = tinyjson.loads(files.read_bounded(paths.config_file(project), LIMIT))
    except (OSError, ValueError):
        return 0, False
    tasks = config.get("tasks") if isinstance(config, dict) else None
    if not isinstance(tasks, list):
        return 0, False
    settings = config.get("settings")
    remind = not isinstance(settings, dict) or settings.get("remind") is not False
    return sum(isinstance(task, dict) and task.get("enabled") is not False for task in tasks), remind
