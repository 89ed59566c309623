"""`trust.json`: which exact contents of which projects the user approved, and which projects the runner serves.

Kept outside every repository, 0600 in 0700; refused when others could have written it. Approvals are a set per project,
stored with their text, so that going back to an approved content needs no new approval and a difference can be shown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from scheduler.core.parse import Config, ConfigUnreadable, parse_config
from scheduler.disk import files, rights
from scheduler.disk.paths import Paths
from scheduler.errors import CorruptFile, SchedulerError
from scheduler.store.config import Source

LIMIT = 256 * 1024 * 1024
KEPT = 20  # approvals a project keeps; the oldest goes first
NAMED = 50  # so many tasks an approval names
NOT_APPROVED = "its config is not the one that was approved"


@dataclass(frozen=True)
class Approver:
    """Who approved: `user` is the account's name, `verb` the command. `how` it was said: in a `terminal`, `typed`
    into a session of the client, by the client itself (`claude`: a tool call), or by a `script`. `session` is that of
    the client, by the first eight characters of its id."""

    user: str
    how: str
    verb: str
    session: str | None = None

    def words(self) -> str:
        """Who and how, as it is said."""
        who = _HOW.get(self.how, "{user}").format(user=self.user)
        return f"{who} ({self.verb})" if self.verb else who


_HOW = {
    "terminal": "{user} in a terminal",
    "typed": "{user} in Claude Code",
    "claude": "Claude Code, for {user}",
    "script": "a script of {user}",
}


@dataclass(frozen=True)
class Approval:
    """One approved content. `by` is None where that was not recorded. `what` it added, changed or took away: ids of
    tasks, `rules.md`."""

    digest: str
    at: str
    config: str
    rules: str | None
    by: Approver | None = None
    what: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suspension:
    """A run changed what decides over runs, and the user has not looked yet: `changes` names what, `difference` shows
    how, as far as it can be told."""

    run: str
    task: str
    at: str
    changes: tuple[str, ...]
    difference: tuple[str, ...] = ()

    def words(self) -> str:
        """What happened, in a clause."""
        more = f" and {len(self.changes) - 1} more" if len(self.changes) > 1 else ""
        return f"SELF-EDIT, run {self.run[:8]} of {self.task} changed {self.changes[0]}{more}"


@dataclass(frozen=True)
class Project:
    """What the user decided for one project. `path` is the PATH and `client` the claude binary found at `enable`.

    While there is a `suspension` nothing counts as approved.
    """

    root: str
    enabled: bool
    path: str
    client: str | None
    enabled_at: str
    approvals: tuple[Approval, ...] = field(default=())
    suspension: Suspension | None = None

    def approves(self, source: Source) -> bool:
        """Whether exactly this content was approved for exactly this place, and nothing happened since."""
        return self.refusal(source) is None

    def refusal(self, source: Source) -> str | None:
        """Why nothing of this content may run, in a clause; None where it was approved."""
        if self.suspension is not None:
            return self.suspension.words()
        approved = source.project == self.root and any(a.digest == source.digest for a in self.approvals)
        return None if approved else NOT_APPROVED

    def last_approved(self) -> Config | None:
        """What was approved last; None where nothing was."""
        try:
            return parse_config(self.approvals[-1].config.encode()) if self.approvals else None
        except ConfigUnreadable:  # by an earlier version
            return None

    def without_texts(self) -> Project:
        """The same to `approves` and `last_approved`, in less memory."""
        kept = [replace(a, config="", rules=None) for a in self.approvals[:-1]]
        return replace(self, approvals=(*kept, *(replace(a, rules=None) for a in self.approvals[-1:])))


def read(paths: Paths) -> dict[str, Project]:
    """Every project the user decided about, by real path. CorruptFile when the store is none; it is left as it is."""
    path = paths.trust
    _refuse_repository(paths)
    try:
        # Also where there is no store yet: what is written there next would be theirs to read and replace.
        found = rights.exposed(path if os.path.exists(path) else paths.state)
        if found is not None:
            place, why = found
            yours = os.stat(place).st_uid == os.getuid()
            hint = f"run: chmod go-rwx '{place}'" if yours else "move it away"
            raise SchedulerError(f"{place} {why}", f"look at it, then {hint}")
        raw = json.loads(files.read_bounded(path, LIMIT))
        return {root: _project(root, entry) for root, entry in raw["projects"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile(
            f"{path} is damaged: {error!r:.120}", "move it away, then 'enable' each project again"
        ) from None


def _refuse_repository(paths: Paths) -> None:
    """Raise SchedulerError where the store is in a repository, whose author could have written it. A home that is one
    itself, as for dotfiles, is its user's own."""
    place, home = os.path.realpath(paths.state), os.path.realpath(paths.home or os.sep)
    while place not in (home, os.path.dirname(place)):
        if os.path.lexists(os.path.join(place, ".git")):
            raise SchedulerError(
                f"the approvals are in the repository {place}, whose files could approve themselves",
                "let CLAUDE_CONFIG_DIR, or SCHEDULER_HOME, name a folder outside every repository",
            )
        place = os.path.dirname(place)


def _project(root: str, entry: dict[str, Any]) -> Project:
    approvals = tuple(map(_approval, entry["approvals"]))
    told = entry.get("suspension")
    suspension = None if told is None else _suspension(told)
    enabled = entry["enabled"] is True
    return Project(root, enabled, entry["path"], entry["client"], entry["enabledAt"], approvals, suspension)


def _approval(told: dict[str, Any]) -> Approval:
    by, what = told.get("by"), tuple(map(str, told.get("what", ())))
    who = None if by is None else Approver(str(by["user"]), str(by["how"]), str(by["verb"]), by.get("session"))
    return Approval(told["digest"], told["at"], told["config"], told["rules"], who, what)


def _suspension(told: dict[str, Any]) -> Suspension:
    changes = tuple(map(str, told["changes"])) or ("something",)
    return Suspension(
        str(told["run"]), str(told["task"]), str(told["at"]), changes, tuple(map(str, told["difference"]))
    )


def lock(paths: Paths) -> files.locked:
    """Held over each check, edit and new approval, so that what was checked is what is approved."""
    return files.locked(files.sidecar(paths.trust), timeout=10)


def write(paths: Paths, projects: dict[str, Project]) -> None:
    """Replace the store; the caller holds `lock`."""
    raw = {
        root: {
            "enabled": p.enabled,
            "path": p.path,
            "client": p.client,
            "enabledAt": p.enabled_at,
            "approvals": [asdict(approval) for approval in p.approvals],
            **({} if p.suspension is None else {"suspension": asdict(p.suspension)}),
        }
        for root, p in projects.items()
    }
    files.write_atomic(paths.trust, json.dumps({"version": 1, "projects": raw}, indent=1).encode() + b"\n")


def approved(
    projects: dict[str, Project], source: Source, at: str, by: Approver | None = None, what: Iterable[str] = ()
) -> dict[str, Project]:
    """`projects` with `source` approved for its project, which must be known."""
    project = projects[source.project]
    others = [a for a in project.approvals if a.digest != source.digest]
    rules = None if source.rules is None else source.rules.decode("utf-8", "replace")
    config = source.config.decode("utf-8", "replace")
    approval = Approval(source.digest, at, config, rules, by, tuple(what)[:NAMED])
    return {**projects, source.project: replace(project, approvals=(*others, approval)[-KEPT:])}


def suspend(paths: Paths, roots: Iterable[str], suspension: Suspension) -> None:
    """Let nothing of these projects run before their user has looked at what a run changed. Takes the lock."""
    with lock(paths):
        known = read(paths)
        found = {root: replace(known[root], suspension=suspension) for root in roots if root in known}
        write(paths, {**known, **found})
