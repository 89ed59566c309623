"""result, diff, merge, adopt, discard: what a person does with the work of a run."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from scheduler.cli import output, record
from scheduler.cli.change import tell
from scheduler.cli.context import Context, json_option, project_option, run_argument
from scheduler.core.plain import plain
from scheduler.disk import files, paths
from scheduler.errors import SchedulerError
from scheduler.execution import aftermath, branches, git, worktree
from scheduler.execution.git import Project
from scheduler.execution.refs import DISCARDED
from scheduler.execution.worktree import Worktree
from scheduler.runner.ledger import read_record
from scheduler.store import history

RESULT_LIMIT = 64 << 20


def _find(context: Context, folder: str | None, run_id: str) -> tuple[Project, dict[str, Any]]:
    """The project and the record of a run that is over."""
    project = git.find_project(folder or os.getcwd(), context.env)
    found = record.find(context.paths, str(project.root), run_id)
    if found["status"] == "running":
        raise SchedulerError(f"run {found['id'][:8]} is still under way", "wait for its end, or 'cancel' it")
    return project, found


@click.command()
@run_argument
@project_option
@json_option
@click.pass_obj
def result(context: Context, /, run_id: str, folder: str | None, as_json: bool) -> None:
    """Print the agent's full closing answer in the run RUN."""
    root = context.root(folder)
    found = record.find(context.paths, root, run_id)
    try:
        text = files.read_bounded(paths.result_file(root, found["id"]), RESULT_LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        why = "it has not ended" if found["status"] == "running" else f"it ended as {record.standing(found)[2:]}"
        raise SchedulerError(f"run {found['id'][:8]} has no answer: {why}", f"see 'logs {found['taskId']}'") from None
    if as_json:
        output.say_json({"runId": found["id"], "text": text})
    else:
        output.say(text.rstrip("\n"))


@click.command()
@run_argument
@project_option
@json_option
@click.pass_obj
def diff(context: Context, /, run_id: str, folder: str | None, as_json: bool) -> None:
    """Show what the run RUN changed, also when it was rolled back. `git apply` reads what a pipe gets."""
    project, found = _find(context, folder, run_id)
    base, tip = ends(project, found)
    patch = branches.patch(project, base, tip)
    if as_json:
        output.say_json({"runId": found["id"], "base": base, "tip": tip, "patch": patch.decode("utf-8", "replace")})
    elif sys.stdout.isatty():
        click.echo_via_pager(plain(patch.decode("utf-8", "replace")))
    else:
        click.echo(patch, nl=False)


def ends(project: Project, found: dict[str, Any]) -> tuple[str, str]:
    """The commit that a run began from, and the one that holds its work. SchedulerError where there is none."""
    tip = found.get("commit") or git.resolve(project, DISCARDED + found["id"])
    base = found.get("baseCommit")
    if not tip or not base:
        _refuse_unisolated(found)
        raise SchedulerError(f"run {found['id'][:8]} left no work: {record.standing(found)[2:]}", "see 'show' for why")
    return base, tip


_UNISOLATED = "this run was not isolated: what it changed is in your checkout"


def _refuse_unisolated(found: dict[str, Any]) -> None:
    """Say of a run without a worktree where its work is."""
    if not found.get("isolated", True):
        raise SchedulerError(_UNISOLATED, "look at it there: `git status`, `git diff`")


@click.command()
@run_argument
@project_option
@json_option
@click.pass_obj
def merge(context: Context, /, run_id: str, folder: str | None, as_json: bool) -> None:
    """Merge the branch of the run RUN into the branch that the main checkout is on; all or nothing."""
    project, found = _find(context, folder, run_id)
    branch, run = found.get("worktreeBranch"), found["id"][:8]
    _refuse_unisolated(found)
    if found["status"] != "success":
        kept = f"adopt it first: 'adopt {run}', then `git merge` its branch"
        hint = kept if found.get("discardedRef") else "see 'show' for why"
        raise SchedulerError(f"run {run} is no success: {record.standing(found)[2:]}", hint)
    if not branch:
        raise SchedulerError(f"run {run} has no branch", "see 'show' for why")
    commit, moved = branches.merge(project, branch)
    tell(context, str(project.root))
    if as_json:
        output.say_json({"runId": found["id"], "branch": branch, "commit": commit, "merged": moved})
    else:
        said = f"merged {branch}" if moved else f"{branch} is already merged"
        output.say(f"{said}: the main checkout is on {commit[:12]}")


@click.command()
@run_argument
@click.option("--branch", metavar="NAME", help="The branch's name; default: adopted/TASK-RUN.")
@project_option
@json_option
@click.pass_obj
def adopt(context: Context, /, run_id: str, branch: str | None, folder: str | None, as_json: bool) -> None:
    """Make a branch of the work of the run RUN, which was rolled back."""
    project, found = _find(context, folder, run_id)
    _refuse_unisolated(found)
    if found["status"] != "success" and not found.get("discardedRef"):
        found = _save_what_stayed(context, found)
    if found["status"] == "success" and found.get("worktreeBranch"):
        raise SchedulerError(f"the work of run {found['id'][:8]} is on {found['worktreeBranch']} already", "'merge' it")
    name = branch or f"adopted/{found['taskId']}-{found['id'][:8]}"
    commit = branches.adopt(project, found["id"], name)
    tell(context, str(project.root))
    if as_json:
        output.say_json({"runId": found["id"], "branch": name, "commit": commit})
    else:
        output.say(f"the work of run {found['id'][:8]} is on the branch {name} ({commit[:12]})")


def _save_what_stayed(context: Context, found: dict[str, Any]) -> dict[str, Any]:
    """The record of a run whose worktree stayed, for not all of it could be saved then, once it is saved."""
    run = read_record(found)
    place = aftermath.place_of(context.paths, run)
    if place is None or not os.path.isdir(place["worktree"]):
        return found
    notes = tuple(note for note in run.notes or () if place["worktree"] not in note)
    saved = aftermath.recover(context.paths, run.evolve(notes=notes or None), place, context.env)
    if saved.worktree_branch is not None:  # the worktree stays, and the last note says why
        why = (saved.notes or ("not all of it could be saved",))[-1]
        if saved.discarded_ref is None:
            raise SchedulerError(why, "mend that, then adopt it again")
        output.note(why)
    history.append(context.paths, saved)
    return saved.to_json()


@click.command()
@run_argument
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@project_option
@json_option
@click.pass_obj
def discard(context: Context, /, run_id: str, yes: bool, folder: str | None, as_json: bool) -> None:
    """Drop the work of the run RUN for good: its branch, what was kept of it, its worktree if there still is one."""
    project, found = _find(context, folder, run_id)
    _refuse_unisolated(found)
    run, left = found["id"][:8], _left(context, project, found)
    if left and not yes:
        if as_json or not sys.stdin.isatty():
            raise SchedulerError(f"this is for good ({', '.join(left)}), so somebody has to say yes", "give --yes")
        if not click.confirm(f"Drop for good what run {run} left: {', '.join(left)}?", default=False):
            raise SchedulerError("not discarded", "nothing was changed")
    _remove_worktree(context, project, found)
    branches.discard(project, found["id"], found.get("worktreeBranch"))
    tell(context, str(project.root))
    if as_json:
        output.say_json({"runId": found["id"], "discarded": bool(left), "dropped": left})
    elif left:
        output.say(f"dropped what run {run} left: {', '.join(left)}")
    else:
        output.say(f"run {run} had left nothing")


def _left(context: Context, project: Project, found: dict[str, Any]) -> list[str]:
    """All that there still is of a run: its branch, its private ref, its worktree."""
    branch, ref, place = found.get("worktreeBranch"), DISCARDED + found["id"], found.get("worktreePath")
    left = []
    if branch and git.resolve(project, f"refs/heads/{branch}") is not None:
        left.append(f"the branch {branch}")
    if git.resolve(project, ref) is not None:
        left.append(f"the private ref {ref}")
    if branch and place and Path(place) in worktree.ours(project, Path(context.paths.worktrees)):
        left.append(f"the worktree {place}")
    return left


def _remove_worktree(context: Context, project: Project, found: dict[str, Any]) -> None:
    """Take away the worktree of a run whose work could not all be saved, if there is one."""
    place = Path(found.get("worktreePath") or "")
    branch = found.get("worktreeBranch")
    if not branch or place not in worktree.ours(project, Path(context.paths.worktrees)):
        return
    lock = aftermath.repository_lock(context.paths, project)
    worktree.remove(Worktree(project, place, branch, found.get("baseCommit") or "", lock))
    with contextlib.suppress(OSError):
        aftermath.empty_trash(context.paths)
