"""What a hook needs of a project's config.json: how many tasks want to run, and whether the user wants reminders.

Only counted, never shown: nobody has approved what is in there. Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

from scheduler.disk import files, paths, tinyjson

LIMIT = 4 << 20


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
