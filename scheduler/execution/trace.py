"""The git commands of a run, as git itself reports them (trace2 events), whoever in the run's tree started them."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

_LIMIT = 256 << 20
_LONGEST = 1 << 20
_WANTED = tuple(f'"event":"{name}"'.encode() for name in ("start", "def_repo", "def_param", "cmd_mode", "exit"))
_TAKE_A_VALUE = frozenset("-C -c --git-dir --work-tree --namespace --super-prefix --config-env --attr-source".split())


@dataclass(frozen=True)
class GitCommand:
    """One git process. `arguments` follow the verb. `worktree`: the tree it acted in, None where it had none.
    `git_dir`: the git folder that it was told to use, as it was told. `mode`: what git made of its arguments ("path",
    "branch", …). `code`: None where it did not end by itself."""

    verb: str
    arguments: tuple[str, ...]
    worktree: str | None = None
    git_dir: str | None = None
    mode: str = ""
    code: int | None = None


def environment(folder: Path) -> dict[str, str]:
    """What a run's environment needs so that its git commands are put on file in `folder` (0700, it must exist)."""
    return {
        "GIT_TRACE2_EVENT": str(folder / "git"),
        "GIT_TRACE2_EVENT_BRIEF": "1",
        "GIT_TRACE2_ENV_VARS": "GIT_DIR",
    }


def read(folder: Path) -> list[GitCommand]:
    """The commands on file, in the order in which they began. What is cut off, or no trace, is passed over."""
    commands: dict[str, GitCommand] = {}
    for line in _lines(folder):
        try:
            event = json.loads(line)
            _take(commands, event["sid"], event)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return list(commands.values())


def _lines(folder: Path) -> Iterator[bytes]:
    """Of every file there, so that GIT_TRACE2_EVENT may also name the folder; git names the files by their time.

    The run can write there: what is no file, or cannot be opened, does not hide what else is there, nor hold us up.
    """
    left = _LIMIT
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(OSError), _open(path) as file:
            for line in iter(lambda: file.readline(_LONGEST), b""):
                left -= len(line)
                if left < 0:
                    return
                if line.startswith(b"{") and any(name in line[:40] for name in _WANTED):
                    yield line


def _open(path: Path) -> BinaryIO:
    """A file to read; OSError for a folder, a pipe, a device or a link."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is not a regular file")
    return os.fdopen(fd, "rb")


def _take(commands: dict[str, GitCommand], sid: str, event: dict[str, Any]) -> None:
    kind = event["event"]
    if kind == "start":
        commands[sid] = _started([str(word) for word in event["argv"]])
        return
    command = commands[sid]
    if kind == "def_repo":
        command = replace(command, worktree=str(event["worktree"]))
    elif kind == "def_param" and event["param"] == "GIT_DIR" and command.git_dir is None:
        command = replace(command, git_dir=str(event["value"]))
    elif kind == "cmd_mode":
        command = replace(command, mode=str(event["name"]))
    elif kind == "exit":
        command = replace(command, code=int(event["code"]))
    commands[sid] = command


def _started(argv: list[str]) -> GitCommand:
    git_dir = None
    words = iter(argv[1:])
    for word in words:
        if word in _TAKE_A_VALUE:
            value = next(words, "")
            git_dir = value if word == "--git-dir" else git_dir
        elif word.startswith("--git-dir="):
            git_dir = word.partition("=")[2]
        elif not word.startswith("-"):
            return GitCommand(word, tuple(words), git_dir=git_dir)
    return GitCommand("", (), git_dir=git_dir)
