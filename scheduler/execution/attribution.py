"""Whether a run did it: which differences of the main checkout its tool calls or git commands account for. Pure.

A person may be at work in the main checkout at the same time, so a difference alone proves nothing. What is here is
evidence, not a sandbox: a plain `rm` by the run's shell leaves none.
"""

from __future__ import annotations

import os.path
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scheduler.execution.containment import Change, Snapshot
from scheduler.execution.refs import is_run_branch
from scheduler.execution.trace import GitCommand

_MOVE_TIP = frozenset("commit merge rebase cherry-pick revert reset am pull".split())
_MOVE_HEAD = _MOVE_TIP | frozenset("checkout switch bisect symbolic-ref filter-branch".split())
_ONLY_INDEX = frozenset(["add", "update-index", "commit"])
_WRITE_FILES = (_MOVE_HEAD - _ONLY_INDEX - {"symbolic-ref"}) | frozenset(
    "rm mv apply restore read-tree stash checkout-index clean sparse-checkout".split()
)
_WRITE_INDEX = (_WRITE_FILES - {"clean"}) | _ONLY_INDEX
_HALF_DONE = frozenset("am apply cherry-pick merge pull rebase revert stash".split())
"""What can have changed something though it failed."""

_ANY_REF = frozenset("fast-import filter-branch filter-repo".split())
_NO_STASH = frozenset("list show apply create".split())
_TAKE_A_VALUE = {
    "tag": frozenset("-m -F -u --message --file --local-user --cleanup --sort --format --trailer".split()),
    "branch": frozenset("-u --set-upstream-to --sort --format --points-at".split()),
    "rebase": frozenset("--onto -s --strategy -X --strategy-option -x --exec -C --empty".split()),
    "update-ref": frozenset(["-m"]),
    "symbolic-ref": frozenset(["-m"]),
    "worktree": frozenset(["--reason"]),
    "push": frozenset("-o --push-option --receive-pack --exec".split()),
    "fetch": frozenset("-o --server-option --depth --deepen --upload-pack --refmap -j --jobs --filter".split()),
}
_NEW_BRANCH = frozenset("-b -B -c -C --orphan --create --force-create".split())
_LISTS_BRANCHES = frozenset(
    "--list --all --remotes --verbose --contains --no-contains --merged --no-merged --show-current --points-at "
    "--set-upstream-to --unset-upstream --edit-description".split()
)
_LISTS_TAGS = frozenset("--list --contains --no-contains --merged --no-merged --points-at --verify".split())


@dataclass
class _Traces:
    """What the commands of a run can have changed."""

    head: bool = False
    index: bool = False
    files: bool = False
    stash: bool = False
    any_ref: bool = False
    branches: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)  # branches that a command makes if they are not there
    tags: set[str] = field(default_factory=set)
    on: dict[str, str | None] = field(default_factory=dict)  # the branch of each worktree


@dataclass(frozen=True)
class _Words:
    """Arguments taken apart: long options, the letters of short ones, what is neither."""

    options: frozenset[str]
    letters: frozenset[str]
    plain: tuple[str, ...]
    new_branch: str | None


def attribute(
    changes: Sequence[Change],
    *,
    tool_paths: Collection[str],
    commands: Sequence[GitCommand],
    before: Snapshot,
    main_root: Path,
    worktree: Path,
    branch: str,
) -> tuple[list[Change], list[Change]]:
    """Part the changes of the main checkout into those that the run accounts for, and the others.

    `tool_paths`: real, absolute paths of files that the run's tool calls wrote. `commands`: its git commands, in their
    order. `before`: the main checkout when the run began. `worktree`, `branch`: the run's own. Branches of runs are in
    neither part, but for one of another run that this run changed.
    """
    found = _Traces(on={str(main_root): before.head, str(worktree): branch})
    for command in commands:
        if command.code in (0, None) or command.verb in _HALF_DONE:
            _follow(found, command, str(main_root), str(worktree))
    wrote = {path for path in tool_paths if not Path(path).is_relative_to(worktree)}
    mine: list[Change] = []
    others: list[Change] = []
    for change in changes:
        if change.kind == "branch" and is_run_branch(change.what):
            if change.what in found.branches - {branch}:
                mine.append(change)
        else:
            (mine if _accounts_for(found, wrote, change, main_root) else others).append(change)
    return mine, others


def wrote_files(commands: Sequence[GitCommand], main_root: Path, worktree: Path) -> bool:
    """Whether a git command of the run wrote files of the main checkout."""
    found = _Traces()
    for command in commands:
        if command.code in (0, None) or command.verb in _HALF_DONE:
            _follow(found, command, str(main_root), str(worktree))
    return found.files


def _accounts_for(found: _Traces, wrote: Collection[str], change: Change, main_root: Path) -> bool:
    if change.kind == "file":
        path = str(main_root / change.what)
        return found.files or path in wrote or any(Path(tool).is_relative_to(path) for tool in wrote)
    if change.kind == "branch":
        made = change.before is None and change.what in found.made
        return found.any_ref or made or change.what in found.branches
    if change.kind == "tag":
        return found.any_ref or change.what in found.tags
    return {"head": found.head, "index": found.index, "stash": found.stash}[change.kind]


def _follow(found: _Traces, command: GitCommand, main_root: str, worktree: str) -> None:
    verb, words = command.verb, _take_apart(command)
    place = _place(command, main_root, worktree)
    path_mode = verb == "checkout" and command.mode == "path"
    if place == main_root and not _only_looks(verb, words):
        found.head |= verb in _MOVE_HEAD and not path_mode
        found.index |= verb in _WRITE_INDEX
        found.files |= verb in _WRITE_FILES
    if verb in _MOVE_TIP:
        found.branches.update(filter(None, [found.on.get(place), *(words.plain[1:2] if verb == "rebase" else ())]))
        found.any_ref |= "--update-refs" in words.options
    elif verb in ("checkout", "switch") and not path_mode:
        _switch(found, place, words)
    elif verb in _ANY_REF or (verb == "update-ref" and "--stdin" in words.options):
        found.any_ref = True
    elif verb in ("update-ref", "symbolic-ref") and words.plain:
        _write_ref(found, place, verb, words.plain)
    elif verb == "stash":
        found.stash |= not (words.plain and words.plain[0] in _NO_STASH)
        found.branches.update(words.plain[1:2] if words.plain[:1] == ("branch",) else ())
    elif verb == "branch" and not (words.options & _LISTS_BRANCHES or words.letters & set("larvu")):
        _branch(found, place, words)
    elif verb == "tag" and not (words.options & _LISTS_TAGS or words.letters & set("lnv")):
        found.tags.update(words.plain if _deletes(words) else words.plain[:1])
    elif verb == "worktree" and words.plain[:1] == ("add",) and len(words.plain) > 1:
        found.made.update(filter(None, [words.new_branch or os.path.basename(words.plain[1].rstrip("/"))]))
        found.branches.update(filter(None, [words.new_branch]))
    elif verb in ("push", "fetch") and words.plain:
        _transfer(found, command, words, {main_root, worktree, f"{main_root}/.git"})


def _place(command: GitCommand, main_root: str, worktree: str) -> str:
    """The tree whose HEAD and index a command acts on: that of an explicit git folder, else the one it stands in."""
    if command.git_dir is not None:
        told = os.path.normpath(os.path.join(command.worktree or worktree, command.git_dir))
        guessed = os.path.normpath(os.path.join(worktree, command.git_dir))
        if f"{main_root}/.git" in (told, guessed):
            return main_root
    return command.worktree or ""


def _take_apart(command: GitCommand) -> _Words:
    values = _TAKE_A_VALUE.get(command.verb, frozenset())
    switches = command.verb in ("checkout", "switch", "worktree")
    options, plain, new_branch = [], [], None
    words = iter(command.arguments)
    for word in words:
        if word == "--":
            plain += [] if command.verb == "checkout" else list(words)
            break
        if switches and (word in _NEW_BRANCH or word[:2] in ("-b", "-B")):
            new_branch = next(words, "") if word in _NEW_BRANCH else word[2:]
        elif switches and word.partition("=")[0] in _NEW_BRANCH:
            new_branch = word.partition("=")[2]
        elif word.startswith("-") and word != "-":
            options.append(word.partition("=")[0])
            if word in values:
                next(words, "")
        else:
            plain.append(word)
    letters = frozenset("".join(option[1:] for option in options if not option.startswith("--")))
    return _Words(frozenset(options), letters, tuple(plain), new_branch)


def _only_looks(verb: str, words: _Words) -> bool:
    return (verb == "stash" and words.plain[:1] in (("list",), ("show",), ("create",))) or (
        verb == "symbolic-ref" and len(words.plain) < 2 and not _deletes(words)
    )


def _deletes(words: _Words) -> bool:
    return "--delete" in words.options or bool(words.letters & set("dD"))


def _switch(found: _Traces, place: str, words: _Words) -> None:
    if words.new_branch is not None:
        found.branches.add(words.new_branch)
        found.on[place] = words.new_branch
    elif "--detach" in words.options or "d" in words.letters or words.plain[:1] == ("-",):
        found.on[place] = None
    elif words.plain:
        found.made.add(words.plain[0])
        found.on[place] = words.plain[0]


def _branch(found: _Traces, place: str, words: _Words) -> None:
    if _deletes(words):
        found.branches.update(words.plain)
    elif words.options & {"--move", "--copy"} or words.letters & set("mMcC"):
        found.branches.update(words.plain)
        if len(words.plain) == 1:
            found.branches.update(filter(None, [found.on.get(place)]))
    else:
        found.branches.update(words.plain[:1])


def _write_ref(found: _Traces, place: str, verb: str, plain: tuple[str, ...]) -> None:
    if plain[0] != "HEAD":
        _name_ref(found, plain[0])
    elif verb == "update-ref":
        found.branches.update(filter(None, [found.on.get(place)]))
    elif len(plain) > 1:
        found.on[place] = plain[1].removeprefix("refs/heads/")


def _transfer(found: _Traces, command: GitCommand, words: _Words, here: Collection[str]) -> None:
    """A fetch writes what it names behind a colon; a push does where it goes to this very repository."""
    target = os.path.normpath(os.path.join(command.worktree or "", words.plain[0].removeprefix("file://")))
    if command.verb == "push":
        if target not in here and words.plain[0] != ".":
            return
        found.any_ref |= bool(words.options & {"--all", "--mirror", "--branches", "--prune"})
    for spec in words.plain[1:]:
        source, colon, goal = spec.lstrip("+").partition(":")
        if colon or command.verb == "push":
            _name_ref(found, goal or source)


def _name_ref(found: _Traces, name: str) -> None:
    if name.startswith("refs/tags/"):
        found.tags.add(name.removeprefix("refs/tags/"))
    elif name == "refs/stash":
        found.stash = True
    elif not name.startswith("refs/") or name.startswith("refs/heads/"):
        found.branches.add(name.removeprefix("refs/heads/"))
        if not name.startswith("refs/"):
            found.tags.add(name)
