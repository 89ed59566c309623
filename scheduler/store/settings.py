"""`settings.json`: what the user set for all projects."""

from __future__ import annotations

from scheduler.core.models import UserSettings, from_json
from scheduler.core.parse import show
from scheduler.disk import files, rights
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError

LIMIT = 1024 * 1024


def read(paths: Paths) -> UserSettings:
    """The user's settings, the defaults where there is no file. SchedulerError, naming the place, when it is wrong."""
    try:
        exposed = rights.exposed(paths.settings)
        if exposed is not None:
            raise SchedulerError(f"{exposed[0]} {exposed[1]}", f"run: chmod go-w '{exposed[0]}'")
        found = from_json(UserSettings, files.read_bounded(paths.settings, LIMIT))
    except FileNotFoundError:
        return UserSettings()
    except OSError as error:
        raise SchedulerError(f"{paths.settings} cannot be read: {error.strerror}", "mend or remove it") from None
    if isinstance(found, UserSettings):
        return found
    place, _, message = found[0]
    raise SchedulerError(f"{paths.settings}: {show(*place) or 'the file'}: {message}", "mend it, or remove the file")
