"""The door to git: every git command of ours goes through `run`; refs are read from their files, without a process.

Git 2.31 or newer; `merge` (branches.py) needs 2.38. Ids of commits are hexadecimal text, paths that git prints are
decoded with surrogateescape, so that any file name survives.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.errors import CommandFailed, SchedulerError
from scheduler.execution import process

if TYPE_CHECKING:
    from git import Repo

SHORT = 120.0
"""Seconds for a command that reads."""

LONG = 900.0
"""Seconds for a command that writes many files or talks to a remote: a disk under churn takes minutes."""

STATUS = ("--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--no-renames", "--no-ahead-behind")
"""Options of `git status` for who parses it."""

_ATTEMPTS = 4
_SWEPT_AWAY = b"unable to create temporary file: No such file or directory"  # a gc took an empty folder away

_KEPT = ("GIT_SSL_CAINFO", "GIT_SSL_CAPATH")  # certificates say nothing about which repository is meant
_SAFE = ("-c", "safe.bareRepository=explicit", "-c", "core.fsmonitor=false", "-c", "maintenance.auto=false")
_NO_HOOKS = ("-c", "core.hooksPath=/dev/null")


class GitFailed(CommandFailed):
    """Git refused or failed; the message ends in git's own words."""


@dataclass(frozen=True)
class Where:
    """Where a git command acts: its folder, the environment that names the repository, what shuts it in a sandbox."""

    folder: Path
    env: Mapping[str, str] = field(repr=False, compare=False)
    wrap: tuple[str, ...] = ()


@dataclass(frozen=True)
class Project:
    """The main working tree of a repository (`root`, a real path) and the git folder that all its worktrees share.

    A submodule's checkout is a project of its own: its common folder lies below `.git/modules` of the repository
    around it. `env` is of `environment`.
    """

    root: Path
    common_dir: Path
    env: Mapping[str, str] = field(repr=False, compare=False)

    @property
    def checkout(self) -> Where:
        """The main working tree. A repository around it is never meant, even if this one has gone."""
        return Where(self.root, {**self.env, "GIT_CEILING_DIRECTORIES": str(self.root.parent)})


def environment(source: Mapping[str, str]) -> dict[str, str]:
    """`source` without what could point git at another repository, and without any way to ask a person.

    Git's output is in English and nothing is written that was only asked about (GIT_OPTIONAL_LOCKS).
    """
    kept = {name: value for name, value in source.items() if not name.startswith("GIT_") or name in _KEPT}
    kept.pop("LANGUAGE", None)
    return {
        **kept,
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "SSH_ASKPASS": "false",
        "SSH_ASKPASS_REQUIRE": "never",
        "GCM_INTERACTIVE": "never",
        "GIT_EDITOR": "true",
        "GIT_OPTIONAL_LOCKS": "0",
    }


def run(
    where: Where,
    *arguments: str,
    settings: tuple[str, ...] = (),
    hooks: bool = False,
    check: bool = True,
    timeout: float = SHORT,
    input: bytes | None = None,
) -> process.Completed:
    """Run git. `settings` are `name=value` of its configuration; the user's hooks run only where `hooks` says so.

    Raises GitFailed (with `check`) when git ends with another code than 0, CommandFailed when it cannot be started or
    takes longer than `timeout` seconds.
    """
    options = [word for setting in settings for word in ("-c", setting)]
    argv = [*where.wrap, "git", *_SAFE, *(() if hooks else _NO_HOOKS), *options, *arguments]
    for _ in range(_ATTEMPTS):
        done = process.run(argv, cwd=where.folder, env=where.env, input=input, timeout=timeout, check=False)
        if done.returncode == 0 or _SWEPT_AWAY not in done.stderr:
            break
    if check and done.returncode:
        raise failed(done, arguments[0])
    return done


def failed(done: process.Completed, verb: str, hint: str = "") -> GitFailed:
    """The error that a git command which ended badly deserves."""
    text = done.stderr.decode(errors="replace")
    said = words(text) or f"code {done.returncode}"
    return GitFailed(f"git {verb} failed: {said}", hint, returncode=done.returncode, stderr=text)


def words(stderr: str) -> str:
    """The one line of git's complaint that says what is wrong: the last fatal one, the last error, the last at all."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("hint:")]
    for prefix in ("fatal: ", "error: ", ""):
        for line in reversed(lines):
            if line.startswith(prefix):
                return line[len(prefix) :]
    return ""


def text(output: bytes) -> str:
    """One line of git's output, without its end."""
    return os.fsdecode(output).rstrip("\n")


def fields(output: bytes) -> list[str]:
    """The parts of a `-z` output."""
    return [os.fsdecode(part) for part in output.split(b"\0") if part]


def ignored(where: Where, names: Iterable[str]) -> list[str]:
    """Those of the paths that git ignores there. One process, none for no names."""
    asked = b"".join(os.fsencode(name) + b"\0" for name in names)
    if not asked:
        return []
    done = run(where, "check-ignore", "--no-index", "--stdin", "-z", input=asked, check=False)
    if done.returncode not in (0, 1):
        raise failed(done, "check-ignore")
    return fields(done.stdout)


def find_project(cwd: Path | str, env: Mapping[str, str] | None = None) -> Project:
    """The project that a folder belongs to: from a subfolder and from any linked worktree the main working tree.

    Raises SchedulerError, in one line each, where there is none: no repository, a bare one, one that git refuses to
    touch because of its owner.
    """
    env = environment(os.environ if env is None else env)
    folder = Path(os.path.realpath(cwd))
    if not folder.is_dir():
        raise SchedulerError(f"there is no folder {cwd}", "give the folder of a git repository")
    if "\n" in str(folder):
        raise SchedulerError(f"{str(folder)!a} holds a line break", "rename the folder")
    done = run(Where(folder, env), *_PLACE, check=False)
    if done.returncode:
        raise _no_repository(folder, done)
    place = _place(done)
    root = place.common.parent
    if not (place.is_main_top and root == folder):
        root = _main_tree(Where(folder, env), place)
        done = run(Project(root, place.common, env).checkout, *_PLACE, check=False)
        if done.returncode or _place(done) != _Place(place.common, place.common, True, ""):
            raise _bare(f"{folder} belongs to a bare repository ({place.common})")
    return Project(root, place.common, env)


_PLACE = (
    "rev-parse",
    "--path-format=absolute",
    *("--git-common-dir", "--git-dir"),
    "--is-inside-work-tree",
    "--show-prefix",
)


@dataclass(frozen=True)
class _Place:
    """What git says of a folder: the shared git folder, the one of its own tree, whether it is in a tree, and where."""

    common: Path
    own: Path
    inside: bool
    prefix: str

    @property
    def is_main_top(self) -> bool:
        return self.own == self.common and self.inside and not self.prefix


def _place(done: process.Completed) -> _Place:
    common, own, inside, prefix = os.fsdecode(done.stdout).split("\n")[:4]
    if common.startswith("--"):  # it repeats an option that it does not know
        raise SchedulerError("this git is too old", "install git 2.31 or newer")
    return _Place(Path(os.path.realpath(common)), Path(os.path.realpath(own)), inside == "true", prefix)


def _main_tree(where: Where, place: _Place) -> Path:
    """Where the main working tree should be; the caller checks that it is there."""
    told = run(where, f"--git-dir={place.common}", "config", "--get", "core.worktree", check=False)
    if told.returncode == 0:  # a submodule, or a tree that was moved away from its git folder
        return Path(os.path.realpath(place.common / text(told.stdout)))
    if place.common.name != ".git" and place.own == place.common:  # `--separate-git-dir`, or `.git` is a link
        top = run(where, "rev-parse", "--show-toplevel", check=False)
        if top.returncode == 0:
            return Path(os.path.realpath(text(top.stdout)))
    return place.common.parent


def _no_repository(folder: Path, done: process.Completed) -> SchedulerError:
    bare = re.search(rb"cannot use bare repository '(.*)' \(safe\.bareRepository", done.stderr)  # by an option of ours
    if bare:
        return _bare(f"{text(bare[1])} is a bare repository")
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)) and not (folder / "HEAD").exists():
        return SchedulerError(f"{folder} is not in a git repository", "go to one, or make one with `git init`")
    lines = done.stderr.decode(errors="replace").splitlines()
    advice = " ".join(line.strip() for line in lines if line.startswith("\t"))
    said = words("\n".join(line for line in lines if line.startswith(("fatal: ", "error: "))))
    return SchedulerError(f"git refuses {folder}: {said or 'no reason given'}", advice or "mend this, then try again")


def _bare(what: str) -> SchedulerError:
    return SchedulerError(f"{what}, which has no main working tree", "schedule tasks in a clone that has one")


@contextlib.contextmanager
def _reads(project: Project) -> Iterator[Repo | None]:
    """GitPython on the main checkout, None where it cannot read: reftable, SHA-256, a GIT_COMMON_DIR that misleads it.

    Only refs and settings are asked for, which it reads by itself; objects would start a git outside our door.
    """
    from git import InvalidGitRepositoryError, NoSuchPathError, Repo

    try:
        opened = Repo(project.common_dir, expand_vars=False)
    except (InvalidGitRepositoryError, NoSuchPathError):  # an agent has damaged or removed it: git says what is wrong
        yield None
        return
    with opened as repo:
        settings = repo.config_reader("repository")
        strange = any(settings.has_option("extensions", name) for name in ("objectformat", "refstorage"))
        yield None if strange or os.path.realpath(repo.common_dir) != str(project.common_dir) else repo


def is_plain(project: Project) -> bool:
    """Whether the repository's worktrees have no settings or formats of their own."""
    with _reads(project) as repo:
        settings = repo.config_reader("repository") if repo else None
        if settings is None or settings.has_option("core", "sparsecheckout"):
            return False
        shared = settings.has_option("core", "sharedrepository")
        extensions = settings.options("extensions") if settings.has_section("extensions") else []
        return not shared and set(extensions) <= {"partialclone", "noop"}


def resolve(project: Project, ref: str) -> str | None:
    """The commit that HEAD (of the main checkout) or a full ref name stands for; None where there is none."""
    from git import SymbolicReference

    with _reads(project) as repo:
        if repo is not None:
            try:
                return SymbolicReference.dereference_recursive(repo, ref)
            except ValueError:
                return None
    done = run(project.checkout, "rev-parse", "--verify", "--quiet", "--end-of-options", ref, check=False)
    return text(done.stdout) if done.returncode == 0 else None


def points_to(project: Project, ref: str) -> str | None:
    """The full name of the ref that a symbolic ref (HEAD of the main checkout, refs/remotes/origin/HEAD) names."""
    from git import SymbolicReference

    with _reads(project) as repo:
        if repo is not None:
            try:
                return str(SymbolicReference(repo, ref).reference.path)
            except (TypeError, ValueError):
                return None
    done = run(project.checkout, "symbolic-ref", "--quiet", ref, check=False)
    return text(done.stdout) if done.returncode == 0 else None
