"""What a person is shown of a task before it may run."""

from __future__ import annotations

from scheduler.cli import output
from scheduler.cli.view import View
from scheduler.core import format as fmt
from scheduler.core.models import Task


def facts(view: View, task: Task) -> list[tuple[str, str]]:
    """When, what, with which permissions and limits, where."""
    execution, tree = task.execution, task.execution.worktree
    moment = view.next_run(task)
    coming = "never" if moment is None else output.moment(moment, view.now)
    limits = [f"stopped after {fmt.setting(execution.timeout)}"]
    limits += [f"at most {fmt.count(execution.max_turns, 'turn')}"] if execution.max_turns else []
    limits += [f"at most {fmt.money(execution.max_budget_usd)}"] if execution.max_budget_usd else []
    return [
        ("when", output.trigger(task.trigger) + ("" if task.enabled else " (disabled)")),
        ("next", coming),
        ("agent", _agent(task)),
        ("prompt" if execution.type == "claude" else "command", execution.command),
        ("may", _permissions(task)),
        ("limits", ", ".join(limits)),
        ("environment", ", ".join(execution.env)),
        ("setup", tree.setup or ""),
        ("precheck", execution.precheck or ""),
        ("verify", execution.verify or ""),
        ("linked in", ", ".join(tree.link)),
        ("where", _where(task)),
        ("sandbox", _sandbox(task)),
    ]


def _agent(task: Task) -> str:
    if task.execution.type == "shell":
        return "shell (/bin/sh -c)"
    return "Claude Code" + (f", model {task.execution.model}" if task.execution.model else "")


def _permissions(task: Task) -> str:
    execution = task.execution
    if execution.type == "shell":
        return "do whatever you can do: it is a program of your own account"
    if execution.skip_permissions:
        return "USE EVERY TOOL UNASKED: whatever it reads can make it do anything that you can do on this machine"
    tools = f"; unasked: {', '.join(execution.allowed_tools)}" if execution.allowed_tools else ""
    return f"what the mode {execution.permission_mode} permits{tools}"


def _sandbox(task: Task) -> str:
    if task.execution.sandbox is None:
        return ""
    places = ", ".join(["its worktree" if task.execution.worktree.enabled else "the main checkout",
                        "git's objects", "a /tmp of its own", *task.execution.sandbox_write])  # fmt: skip
    return f"bubblewrap: it can read your files and use the network, and write to {places}"


def _where(task: Task) -> str:
    tree = task.execution.worktree
    if not tree.enabled:
        return "THE MAIN CHECKOUT ITSELF: what a failed run changed there stays"
    pushed = f", pushed to {tree.remote_name} after success" if tree.push else ""
    return f"a worktree of its own from {tree.base}, branch {tree.branch_prefix}{task.id}-…{pushed}"
