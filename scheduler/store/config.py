"""A project's `config.json` and `rules.md`: read with care, edited only as plain JSON, approved by content.

What is unknown to us is kept on rewrite; a file that cannot be parsed is never rewritten.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scheduler.core.parse import Config, ConfigUnreadable, parse_config
from scheduler.disk import files, paths, rights
from scheduler.errors import SchedulerError

if TYPE_CHECKING:
    from scheduler.core.redact import Redactor

CONFIG_LIMIT = 16 * 1024 * 1024
RULES_LIMIT = 1024 * 1024
EMPTY: dict[str, Any] = {"version": 1, "tasks": []}


class ConfigAbsent(SchedulerError):
    """The project has no config: nothing is scheduled in it."""


@dataclass(frozen=True)
class Source:
    """The exact bytes that decide what runs in a project; `rules` is None where there is no rules.md."""

    project: str
    config: bytes
    rules: bytes | None

    @property
    def digest(self) -> str:
        """SHA-256 over real path, config bytes and rules bytes, each with its length before it: what is approved."""
        total = hashlib.sha256()
        for part in (os.fsencode(self.project), self.config, b"-" if self.rules is None else b"+" + self.rules):
            total.update(b"%d:" % len(part))
            total.update(part)
        return total.hexdigest()

    def vetted(self, environment: Mapping[str, str]) -> tuple[Config, Redactor]:
        """What it says, without secrets in what goes on record, and what takes out those of its tasks and of an
        environment. Raises as `parse` does."""
        from scheduler.core import vet  # only here: who only looks does not need all the patterns of secrets

        parsed = self.parse()
        redactor = vet.redactor_for(parsed, environment)
        return vet.vetted(parsed, self.config, redactor), redactor

    def parse(self) -> Config:
        """The config. ConfigUnreadable, naming the file, when it is none."""
        try:
            return parse_config(self.config)
        except ConfigUnreadable as error:
            raise ConfigUnreadable(f"{paths.config_file(self.project)} {error.message}", error.hint) from None


def read_source(project: str) -> Source:
    """The config and rules of a project (a real path). ConfigAbsent where there is no config; ConfigUnreadable where
    a file is too large, of the wrong kind, or could have been written by somebody else."""
    config = _read(paths.config_file(project), CONFIG_LIMIT)
    if config is None and not os.path.isdir(project):
        raise ConfigAbsent("its folder is not there any more", "if it was moved, 'enable' it where it is now")
    if config is None:
        raise ConfigAbsent(f"no tasks in {project}", "make one with 'add'")
    return Source(project, config, _read(paths.rules_file(project), RULES_LIMIT))


def _read(path: str, limit: int) -> bytes | None:
    try:
        found = rights.exposed(path)
        if found is not None:
            place, why = found
            raise ConfigUnreadable(f"{place} {why}", f"run: chmod go-w '{place}'")
        return files.read_bounded(path, limit)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigUnreadable(
            f"{path} cannot be read: {error.strerror}", "mend the file; nothing was changed"
        ) from None


def edited(source: Source | None, project: str, change: Callable[[list[Any]], None]) -> Source:
    """What the config would be after `change` on its list of raw tasks. Pure but for the parse; nothing is written.

    `source` None stands for a config that does not exist yet.
    """
    raw: dict[str, Any]
    if source is None:
        raw = json.loads(json.dumps(EMPTY))
    else:
        source.parse()  # a file that is not ours to understand is not ours to rewrite
        raw = json.loads(source.config.decode("utf-8-sig"))
    change(raw.setdefault("tasks", []))
    data = _to_bytes(raw)
    if len(data) > CONFIG_LIMIT:
        raise SchedulerError("the config would pass 16 MB", "remove tasks first")
    return Source(project, data, source.rules if source else _read(paths.rules_file(project), RULES_LIMIT))


def _to_bytes(raw: dict[str, Any]) -> bytes:
    text = json.dumps(raw, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair: JSON can say it only by its number
        return json.dumps(raw, indent=2).encode() + b"\n"


def write(source: Source, before: Source | None) -> None:
    """Put `source` in place of `before`. SchedulerError when the file is no longer what `before` was read from."""
    path = paths.config_file(source.project)
    now = _read(path, CONFIG_LIMIT)
    if now != (before.config if before else None):
        raise SchedulerError(f"{path} changed while it was edited", "run the command again")
    files.make_folder(os.path.dirname(path), 0o755)
    files.write_atomic(path, source.config, mode=None if before else 0o644)


def prepare_logs(project: str) -> None:
    """Make the logs folder, with the `.gitignore` that keeps git's hands off it on any branch."""
    folder = paths.logs_folder(project)
    ignore = os.path.join(folder, ".gitignore")
    if not os.path.isfile(ignore):
        files.make_folder(folder)
        files.write_atomic(ignore, b"*\n")
