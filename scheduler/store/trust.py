"""`trust.json`: which exact contents of which projects the user approved, and which projects the runner serves.

Kept outside every repository, 0600 in 0700; refused when others could have written it. Approvals are a set per project,
stored with their text, so that going back to an approved content needs no new approval and a difference can be shown.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from typing import Any

from scheduler.disk import files, rights
from scheduler.disk.paths import Paths
from scheduler.errors import CorruptFile, SchedulerError
from scheduler.store.config import Source

LIMIT = 256 * 1024 * 1024
KEPT = 20  # approvals a project keeps; the oldest goes first


@dataclass(frozen=True)
class Approval:
    """One approved content."""

    digest: str
    at: str
    config: str
    rules: str | None


@dataclass(frozen=True)
class Project:
    """What the user decided for one project. `path` is the PATH and `client` the claude binary found at `enable`."""

    root: str
    enabled: bool
    path: str
    client: str | None
    enabled_at: str
    approvals: tuple[Approval, ...] = field(default=())

    def approves(self, source: Source) -> bool:
        """Whether exactly this content was approved for exactly this place."""
        return source.project == self.root and any(a.digest == source.digest for a in self.approvals)

    def without_texts(self) -> Project:
        """The same to `approves`, in little memory."""
        return replace(self, approvals=tuple(replace(a, config="", rules=None) for a in self.approvals))


def read(paths: Paths) -> dict[str, Project]:
    """Every project the user decided about, by real path. CorruptFile when the store is none; it is left as it is."""
    path = paths.trust
    try:
        for place in (path, os.path.dirname(path)):
            why = rights.others_can_write(place)
            if why:
                raise SchedulerError(f"{place} {why}", f"look at it, then run: chmod go-rwx '{place}'")
        raw = json.loads(files.read_bounded(path, LIMIT))
        return {root: _project(root, entry) for root, entry in raw["projects"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile(
            f"{path} is damaged: {error!r:.120}", "move it away, then 'enable' each project again"
        ) from None


def _project(root: str, entry: dict[str, Any]) -> Project:
    approvals = tuple(Approval(a["digest"], a["at"], a["config"], a["rules"]) for a in entry["approvals"])
    return Project(root, entry["enabled"] is True, entry["path"], entry["client"], entry["enabledAt"], approvals)


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
            "approvals": [{"digest": a.digest, "at": a.at, "config": a.config, "rules": a.rules} for a in p.approvals],
        }
        for root, p in projects.items()
    }
    files.write_atomic(paths.trust, json.dumps({"version": 1, "projects": raw}, indent=1).encode() + b"\n")


def approval(source: Source, at: str) -> Approval:
    """The approval of one content."""
    rules = None if source.rules is None else source.rules.decode("utf-8", "replace")
    return Approval(source.digest, at, source.config.decode("utf-8", "replace"), rules)


def approved(projects: dict[str, Project], source: Source, at: str) -> dict[str, Project]:
    """`projects` with `source` approved for its project, which must be known."""
    project = projects[source.project]
    others = [a for a in project.approvals if a.digest != source.digest]
    new = Project(
        project.root,
        project.enabled,
        project.path,
        project.client,
        project.enabled_at,
        (*others, approval(source, at))[-KEPT:],
    )
    return {**projects, source.project: new}
