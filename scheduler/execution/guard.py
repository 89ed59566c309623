"""What decides over runs, before and after one: the project's config, hooks of git and of the client, approvals.

A run must not change any of it. As with the main checkout (containment.py) a person may be at work there too, so a
change is the run's only where a tool call of its own or a git command of its own accounts for it.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scheduler.core.plain import visible
from scheduler.core.redact import Redactor
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import git
from scheduler.execution.git import Project, Where
from scheduler.execution.trace import GitCommand

_READ_LIMIT = 1 << 20  # bytes of a file that is held to compare it; of a larger one only its state
_MOST_HOOKS = 1000
_SHOWN = 200  # lines of differences that are kept
_LONGEST = 300
_SETTINGS = (".claude/settings.json", ".claude/settings.local.json")
_OURS = (paths.config_file(""), paths.rules_file(""))
_MAKES_HOOKS = frozenset(["clone", "init", "lfs"])
_LOOKS_ONLY = frozenset(
    "--get --get-all --get-regexp --get-urlmatch --get-color --get-colorbool --list -l get list".split()
)
_STARTS_PROGRAMS = re.compile(
    r"core\.(askpass|attributesfile|editor|fsmonitor|gitproxy|hookspath|pager|sshcommand|worktree)|hook\..*|alias\..*"
    r"|filter\..*\.(clean|smudge|process)|diff\.(external|.*\.command|.*\.textconv)|merge\..*\.driver|include(if)?\..*"
    r"|credential\.(.*\.)?helper|gpg\.(.*\.)?program|sequence\.editor|pager\..*|init\.templatedir|protocol\..*"
    r"|remote\..*\.(uploadpack|receivepack|vcs)|url\..*|uploadpack\.packobjectshook|safe\..*|submodule\..*\.update"
    r"|extensions\.worktreeconfig"
)
"""Settings by which git starts a program, reads more settings, or trusts a folder."""

Content = bytes | tuple[int, ...]


@dataclass(frozen=True)
class Guarded:
    """What is there. `files`: content by real path (of a large file its state); `labels`: how people call each place.
    `settings`: git's own files of settings, by path."""

    files: Mapping[str, Content]
    labels: Mapping[str, str]
    settings: Mapping[str, bytes]
    personal: frozenset[str] = frozenset()
    """Paths that are the user's own, and change by what the user does elsewhere."""


@dataclass(frozen=True)
class Finding:
    """What a run changed: `mine` names it, `difference` shows it, `roots` are other projects whose approvals changed.
    `others`: what changed meanwhile and is not attributed to the run."""

    mine: tuple[str, ...] = ()
    difference: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


@dataclass
class _Seen:
    files: dict[str, Content] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    personal: set[str] = field(default_factory=set)

    def look(self, path: str, label: str, *, personal: bool = False) -> None:
        path = os.path.realpath(path)
        self.labels[path] = label
        if personal:
            self.personal.add(path)
        content = _content(path)
        if content is not None:
            self.files[path] = content

    def walk(self, folder: str, label: str, *, personal: bool = False) -> None:
        self.labels[os.path.realpath(folder)] = label
        if personal:
            self.personal.add(os.path.realpath(folder))
        for count, path in enumerate(_below(folder)):
            if count == _MOST_HOOKS:
                return
            self.look(path, f"{label} {os.path.relpath(path, folder)}", personal=personal)


def is_decisive(path: str) -> bool:
    """Whether a path, seen from the main checkout, is one of those looked at here."""
    return path in (*_SETTINGS, *_OURS) or path.startswith(".claude/hooks/")


def look(project: Project, places: Paths) -> Guarded:
    """What decides over the runs of a project, now. No process, unless the repository has its hooks elsewhere."""
    root, seen = str(project.root), _Seen()
    seen.look(paths.config_file(root), "the project's config.json")
    seen.look(paths.rules_file(root), "the project's rules.md")
    for name in _SETTINGS:
        seen.look(os.path.join(root, name), f"the project's {name}")
        seen.look(os.path.join(places.claude, os.path.basename(name)), f"your own {name}", personal=True)
    seen.walk(os.path.join(root, ".claude/hooks"), "the project's hook of the client")
    seen.walk(os.path.join(places.claude, "hooks"), "your own hook of the client", personal=True)
    seen.look(places.trust, "the approvals", personal=True)
    seen.look(places.settings, "the scheduler's settings", personal=True)
    seen.look(places.off_switch, "the off switch", personal=True)
    settings = {path: data for path in _settings_files(project) if isinstance(data := _content(path), bytes)}
    for folder in _hook_folders(project, settings.values()):
        seen.walk(folder, "the git hook")
    return Guarded(seen.files, seen.labels, settings, frozenset(seen.personal))


def _content(path: str) -> Content | None:
    try:
        return files.read_bounded(path, _READ_LIMIT)
    except OSError:
        with contextlib.suppress(OSError):
            info = os.stat(path)
            return info.st_mode, info.st_size, info.st_mtime_ns, info.st_ino
    return None


def _below(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        yield from (os.path.join(place, name) for name in sorted(names) if not name.endswith(".sample"))


def _settings_files(project: Project) -> list[str]:
    home = project.env.get("HOME", "")
    xdg = project.env.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return [str(project.common_dir / "config"), os.path.join(home, ".gitconfig"), os.path.join(xdg, "git/config")]


def _hook_folders(project: Project, settings: Collection[bytes]) -> list[str]:
    found = [str(project.common_dir / "hooks")]
    if any(b"hookspath" in data.lower() for data in settings):
        asked = ("rev-parse", "--path-format=absolute", "--git-path", "hooks")
        with contextlib.suppress(SchedulerError):
            found.append(git.text(git.run(project.checkout, *asked, hooks=True).stdout))
    return found


def compare(
    project: Project,
    before: Guarded,
    after: Guarded,
    *,
    tool_paths: Collection[str],
    commands: Sequence[GitCommand],
    wrote_files: bool,
) -> Finding:
    """What is different, parted into what the run accounts for and the rest.

    `tool_paths`: real paths that the run's tool calls wrote, where what they wrote counts though it was put back.
    `wrote_files`: a git command of the run wrote files of the main checkout.
    """
    done = [command for command in commands if command.code in (0, None)]
    made_hooks = any(command.verb in _MAKES_HOOKS for command in done)
    mine: dict[str, str] = {path: label for path in tool_paths if (label := _label(path, before, after)) is not None}
    others: list[str] = []
    for path in sorted(before.files.keys() | after.files.keys()):
        if path in mine or before.files.get(path) == after.files.get(path):
            continue
        label = str(_label(path, before, after))
        inside = Path(path).is_relative_to(project.root) and not Path(path).is_relative_to(project.common_dir)
        if (inside and wrote_files) or (label.startswith("the git hook") and made_hooks):
            mine[path] = label
        elif path not in before.personal | after.personal:
            others.append(label)
    difference = _differences(mine, before, after)
    for path in sorted(before.settings.keys() | after.settings.keys()):
        for key in _changed_settings(project, before.settings.get(path, b""), after.settings.get(path, b"")):
            label = f"git's setting {key} in {path}"
            if any(_sets(command, key) for command in done):
                mine[f"{path} {key}"] = label
            elif path == str(project.common_dir / "config"):
                others.append(label)
    roots = _changed_projects(mine, before, after)
    return Finding(tuple(dict.fromkeys(mine.values())), tuple(difference), roots, tuple(others))


def touched(guarded: Guarded, tool_paths: Collection[str]) -> tuple[str, ...]:
    """What of it tool calls wrote, by name."""
    found = (_label(path, guarded, guarded) for path in tool_paths)
    return tuple(dict.fromkeys(label for label in found if label is not None))


def _label(path: str, before: Guarded, after: Guarded) -> str | None:
    """How people call a guarded path: a file that is known, or one below a guarded folder; None for any other."""
    path = os.path.realpath(path)
    for known in (after.labels, before.labels):
        if path in known:
            return known[path]
        folder = next((place for place in map(str, Path(path).parents) if place in known), None)
        if folder is not None and not path.endswith(".sample"):
            return f"{known[folder]} {os.path.relpath(path, folder)}"
    return None


def _differences(mine: Mapping[str, str], before: Guarded, after: Guarded) -> list[str]:
    """How the texts changed; not the approvals, which hold all configs once more."""
    lines: list[str] = []
    for path, label in mine.items():
        old, new = before.files.get(path, b""), after.files.get(path, b"")
        if label != "the approvals" and isinstance(old, bytes) and isinstance(new, bytes):
            was, now = (visible(data.decode("utf-8", "replace")).split("\n") for data in (old, new))
            lines += difflib.unified_diff(was, now, f"before/{path}", f"after/{path}", lineterm="")
    return lines


def without_secrets(difference: Sequence[str], redactor: Redactor) -> tuple[str, ...]:
    """As much of a difference as is kept. It is cut afterwards: a secret at that place must be seen whole."""
    lines = redactor.text("\n".join(difference)).split("\n") if difference else []
    cut = tuple(line[:_LONGEST] for line in lines[:_SHOWN])
    return cut if len(lines) <= _SHOWN else (*cut, f"… and {len(lines) - _SHOWN} more lines")


def _changed_settings(project: Project, before: bytes, after: bytes) -> list[str]:
    """The keys by which git starts programs that are not as they were."""
    if before == after:
        return []
    old, new = (_settings(project, data) for data in (before, after))
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _settings(project: Project, data: bytes) -> dict[str, list[str]]:
    anywhere = Where(Path("/"), project.env)  # the project may have gone meanwhile
    done = git.run(anywhere, "config", "--file=-", "--no-includes", "--list", "-z", input=data, check=False)
    found: dict[str, list[str]] = {}
    for entry in git.fields(done.stdout):
        key, _, value = entry.partition("\n")
        if _STARTS_PROGRAMS.fullmatch(key.lower()):
            found.setdefault(key, []).append(value)
    return found


def _sets(command: GitCommand, key: str) -> bool:
    """Whether a `git config` names this key, its section, or edits the whole."""
    if command.verb != "config" or not _LOOKS_ONLY.isdisjoint(command.arguments):
        return False
    words = [word.lower() for word in command.arguments]
    named = any(word == key.lower() or key.lower().startswith(f"{word}.") for word in words)
    return named or not {"-e", "--edit", "edit"}.isdisjoint(words)


def _changed_projects(mine: Mapping[str, str], before: Guarded, after: Guarded) -> tuple[str, ...]:
    """The projects whose entry among the approvals is not as it was, where the run wrote there."""
    path = next((path for path, label in mine.items() if label == "the approvals"), None)
    if path is None:
        return ()
    old, new = (_projects(guarded.files.get(path)) for guarded in (before, after))
    return tuple(sorted(root for root in new if old.get(root) != new[root]))


def _projects(content: Content | None) -> Mapping[str, object]:
    if isinstance(content, bytes):
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            return dict(json.loads(content)["projects"])
    return {}
