"""A sandbox for a run, by bubblewrap: its processes see the whole file system, and can write to very little of it.

That is: the folder that they work in, git's objects, git's records of the worktree, the folder of the run's branch,
places that the task names, and folders that are gone after the run (/tmp, what the client notes). What decides over
runs can be read at most; approvals, the runner's socket and those of the system cannot be seen. They are in a process
namespace of their own, so that when their first process has ended none is left. The network is the user's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import process
from scheduler.execution.environment import DEFAULT_PATH
from scheduler.execution.git import Project
from scheduler.execution.worktree import Worktree, admin_folder

PROGRAM = "bwrap"
INSTALL = "install bubblewrap (Debian's package `bubblewrap`), or take `sandbox` out of the task"
_PROBE_SECONDS = 30
_ALONE = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL")
_NAMES = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/nscd", "/run/current-system")
"""Of /run, where sockets are, what names are looked up by."""
_EMPTY = ("/tmp", "/run")
_NOTES = frozenset(
    ".claude.json backups cache debug file-history history.jsonl ide image-cache jobs logs paste-cache plans projects "
    "scheduler session-env sessions shell-snapshots statsig tasks telemetry todos".split()
)
"""What the client writes of its own in its folder: the run begins without, and what it writes there goes with it."""
_LOGIN = ".credentials.json"
_CHANGES_LIMIT = 32 << 20
_PROJECT_NAME_LIMIT = 200  # a longer name of a folder of sessions is cut and has a digest, which only the client knows


class SandboxMissing(SchedulerError):
    """The sandbox cannot be had; nothing may be started without it."""


@dataclass(frozen=True)
class Room:
    """What a run is about: where its processes work (`tree` None: in the main checkout), its scratch, its environment,
    the client's program (None for a shell command) and what the task names beside (`write`)."""

    project: Project
    places: Paths
    scratch: Path
    env: Mapping[str, str]
    tree: Worktree | None = None
    client: str | None = None
    write: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return self.project.root if self.tree is None else self.tree.path


def find(path_var: str) -> str | None:
    """The program as an absolute path, None where there is none."""
    folders = [folder for folder in (path_var or DEFAULT_PATH).split(":") if os.path.isabs(folder)]
    return shutil.which(PROGRAM, path=":".join(folders))


def trouble(path_var: str) -> str | None:
    """Why no sandbox can be had with this PATH, in a clause; None where one can."""
    program = find(path_var)
    if program is None:
        return f"no `{PROGRAM}` on the PATH"
    return _try([program, *_ALONE, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--"], {})


def _try(argv: list[str], env: Mapping[str, str]) -> str | None:
    try:
        done = process.run([*argv, "/bin/sh", "-c", ":"], env=env, timeout=_PROBE_SECONDS, check=False)
    except SchedulerError as error:
        return error.message
    if done.returncode == 0:
        return None
    said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"it ended with code {done.returncode}"]
    return f"{PROGRAM} does not work here: {said[-1].removeprefix(f'{PROGRAM}: ')}"


def environment(room: Room) -> dict[str, str]:
    """What the environment of its processes has to say there."""
    settings = {"gc.auto": "0", "maintenance.auto": "false"}  # neither can be done from inside
    told = {"TMPDIR": "/tmp", "GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        told |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return told if room.client is None else {**told, "CLAUDE_CONFIG_DIR": room.places.claude}


def enter(room: Room) -> tuple[str, ...]:
    """The words to put before a command line, so that it runs inside. Mount points are made where they are missing.

    SandboxMissing where there is no program, a place is not there, or the system does not let it work: it was tried.
    """
    program = find(room.env.get("PATH", ""))
    if program is None:
        raise SandboxMissing(f"the task asks for a sandbox, and there is no `{PROGRAM}`", INSTALL)
    mounts = [word for mount in _mounts(room) for word in mount]
    argv = [program, *_ALONE, *mounts, "--chdir", str(room.folder), "--"]
    why = _try(argv, room.env)
    if why is not None:
        raise SandboxMissing(f"the task asks for a sandbox: {why}", INSTALL)
    return tuple(argv)


Mount = tuple[str, ...]


def _mounts(room: Room) -> Iterator[Mount]:
    """In their order: each covers what was there before."""
    yield "--ro-bind", "/", "/"
    yield "--dev", "/dev"
    yield "--proc", "/proc"
    yield _bind(_made(room.scratch / "tmp"), Path("/tmp"))
    yield "--tmpfs", "/run"
    yield from (("--ro-bind-try", name, name) for name in (*_NAMES, *_hidden(room)))
    for place in room.write:
        path = place.replace("~", room.env.get("HOME", "~"), 1) if place.startswith("~/") else place
        if not os.path.exists(path):
            raise SandboxMissing(
                f"sandboxWrite names {place}, which is not there", "make it, or take it out of the task"
            )
        yield _bind(Path(path))
    if room.tree is None:
        yield _bind(room.folder)
        yield _bind(room.project.common_dir)
    else:
        yield _read(room.project.common_dir)
    yield from _what_decides(room)
    if room.client is not None:
        yield from _client(room)
    yield "--tmpfs", room.places.state
    yield _bind(_made(room.scratch / "trace"))
    if room.tree is not None:
        yield from _worktree(room.project, room.tree)


def _bind(source: Path, target: Path | None = None) -> Mount:
    return "--bind", str(source), str(target or source)


def _read(path: Path) -> Mount:
    return "--ro-bind", str(path), str(path)


def _made(folder: Path) -> Path:
    files.make_folder(folder)
    return folder


def _hidden(room: Room) -> Iterator[str]:
    """What is needed and lies below the folders that are empty inside."""
    path = room.env.get("PATH", "").split(":")
    needed = [room.env.get("HOME", ""), str(room.project.root), str(room.project.common_dir), room.places.claude, *path]
    needed += [os.path.dirname(room.client or "")]
    needed += [str(Path(__file__).resolve().parents[2]), sys.prefix, sys.base_prefix]  # the hook, and its interpreter
    for place in dict.fromkeys(map(os.path.realpath, filter(os.path.isabs, needed))):
        if any(place.startswith(f"{empty}/") for empty in _EMPTY):
            yield place


def _what_decides(room: Room) -> Iterator[Mount]:
    """Whatever the places above hold of it, it is not written to."""
    root, common = room.project.root, room.project.common_dir
    names = (paths.CONFIG_FOLDER, ".claude/settings.json", ".claude/settings.local.json", ".claude/hooks")
    decisive = [*(root / name for name in names), common / "hooks", common / "config"]
    own = Path(room.places.claude)
    yield from (_read(path) for path in (*decisive, own) if path.exists())


def _worktree(project: Project, tree: Worktree) -> Iterator[Mount]:
    """The worktree, and what git writes to when somebody commits there; not which repository it is of."""
    admin = admin_folder(tree)
    if admin is None:
        raise SandboxMissing("git does not know the worktree", "was `git worktree prune` called?")
    yield _bind(project.common_dir / "objects")
    branches = Path(tree.ref).parent
    for folder in (project.common_dir / branches, project.common_dir / "logs" / branches):
        yield _bind(_made(folder))
    yield _bind(admin)
    (admin / "config.worktree").touch()
    yield from (_read(admin / name) for name in ("commondir", "gitdir", "config.worktree"))
    yield _bind(tree.path)
    yield _read(tree.path / ".git")


def _client(room: Room) -> Iterator[Mount]:
    """Its folder as a new one with the user's settings and login in it, and where it notes this session.

    The hook's lines go into a folder of their own: the logs tell of all runs.
    """
    own, real = _made(room.scratch / "client"), Path(_made(Path(room.places.claude)))
    yield _bind(own, real)
    for name in sorted(os.listdir(real)):
        if name == _LOGIN:
            yield _bind(real / name)  # a login that is renewed is renewed for all
        elif name not in _NOTES:
            yield "--ro-bind-try", str(real / name), str(real / name)
    told = real if room.env.get("CLAUDE_CONFIG_DIR") else Path(room.env.get("HOME", "/nowhere"))
    if not (own / ".claude.json").exists() and (told / ".claude.json").is_file():
        shutil.copyfile(told / ".claude.json", own / ".claude.json")
    session = re.sub(r"[^A-Za-z0-9]", "-", str(room.folder))
    if len(session) <= _PROJECT_NAME_LIMIT:
        yield _bind(_made(real / "projects" / session))
    logs = Path(paths.logs_folder(str(room.project.root)))
    yield _bind(_made(room.scratch / "logs"), _made(logs))


def bring_in_changes(room: Room, run_id: str) -> None:
    """Put the lines that the hook wrote of this run, in a folder of its own inside, to those of the project."""
    file = paths.file_changes(str(room.project.root))
    own = str(room.scratch / "logs" / os.path.basename(file))
    for part in (*files.rotated(own), own):
        try:
            lines = files.read_bounded(part, _CHANGES_LIMIT).splitlines(keepends=True)
        except OSError:
            continue
        mine = b"".join(line for line in lines if line.endswith(b"\n") and _is_of(line, run_id))
        if mine:
            files.append(file, mine)
        os.unlink(part)


def _is_of(line: bytes, run_id: str) -> bool:
    try:
        change = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(change, dict) and change.get("run") == run_id
