"""`runner.env`: variables that the user gives to the runner alone, such as the token of a login. Only read, by us.

    # a comment
    CLAUDE_CODE_OAUTH_TOKEN=…

One NAME=value a line; quotes around the whole value and a leading `export` are taken off. Nothing is expanded or run.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

from scheduler.disk import files, rights
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError

LIMIT = 256 * 1024
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.DOTALL)


def read(paths: Paths) -> dict[str, str]:
    """What it says, nothing where there is no file. SchedulerError where it is damaged, or others have access to it."""
    path = paths.runner_env
    try:
        why = rights.others_can_write(path)
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if why or mode & 0o077:
            said = why or f"can be read by others (mode {mode:o})"
            raise SchedulerError(f"{path} {said}, so it is not used", f"run: chmod 600 '{path}'")
        lines = files.read_bounded(path, LIMIT).decode("utf-8", "surrogateescape").split("\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SchedulerError(f"{path} cannot be read: {error.strerror}", "mend or remove it") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        match = _LINE.match(text)
        if match and "\0" not in text:
            found[match[1]] = _unquoted(match[2])
        elif text and not text.startswith("#"):
            raise SchedulerError(f"{path}, line {number}: not NAME=value, so the file is not used", "mend that line")
    return found


def added(env: Mapping[str, str], paths: Paths) -> dict[str, str]:
    """An environment with what the file says, which wins. Raises SchedulerError."""
    return {**env, **read(paths)}


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
