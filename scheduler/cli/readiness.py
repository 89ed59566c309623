"""What a run will need, looked at before the first night does: commits, identity, remote, the client and its login."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from scheduler.cli.context import Context
from scheduler.core.health import Finding
from scheduler.core.models import Task
from scheduler.errors import SchedulerError
from scheduler.execution import claude, git, refs, sandbox
from scheduler.execution.environment import build_environment
from scheduler.execution.git import Project
from scheduler.store import ownenv, settings


def checks(context: Context, root: str, tasks: tuple[Task, ...], client: str | None) -> Iterator[Finding]:
    """The findings for the tasks of a project; `client` is the path of the client that would be recorded."""
    project = git.find_project(root, context.env)
    yield base(project)
    yield identity(project)
    for remote in sorted({task.execution.worktree.remote_name for task in tasks if task.execution.worktree.push}):
        yield _remote(project, remote)
    if any(task.execution.sandbox for task in tasks):
        trouble = sandbox.trouble(context.env.get("PATH", ""))
        said = "bubblewrap works here" if trouble is None else f"{trouble}: {sandbox.INSTALL}"
        yield Finding("fail" if trouble else "ok", "sandbox", said)
    if any(task.execution.type == "claude" for task in tasks):
        yield from _client(context, tasks, client)


def base(project: Project) -> Finding:
    """Whether there is something to start from."""
    commit = git.resolve(project, "HEAD")
    if commit is None:
        return Finding("fail", "base", "the repository has no commits yet: commit something first")
    return Finding("ok", "base", f"HEAD is {commit[:12]}")


def identity(project: Project) -> Finding:
    """Under which name work is committed."""
    done = git.run(project.checkout, "var", "GIT_COMMITTER_IDENT", check=False)
    if done.returncode:
        return Finding("warn", "git identity", "none is set: work is committed under a name of the scheduler's")
    return Finding("ok", "git identity", git.text(done.stdout).rpartition(">")[0] + ">")


def _remote(project: Project, name: str) -> Finding:
    try:
        refs.check_remote(project, name)
    except SchedulerError as error:
        return Finding("fail", "push", f"{error.message}: {error.hint}")
    return Finding("ok", "push", f"the remote {name} is known")


def _client(context: Context, tasks: tuple[Task, ...], client: str | None) -> Iterator[Finding]:
    if client is None:
        yield Finding("fail", "client", "no `claude` on the PATH: install Claude Code, then run 'enable' again")
        return
    yield Finding("ok", "client", client)
    passed = settings.read(context.paths).env_pass
    source = ownenv.added(context.env, context.paths)
    env = build_environment(source, path=context.env.get("PATH"), env_pass=passed, task_env={}, run={})
    yield _login(context, client, env)
    if os.geteuid() == 0 and env.get("IS_SANDBOX") != "1" and any(task.execution.skip_permissions for task in tasks):
        yield Finding("fail", "permissions", "as root the client refuses to skip permissions: use another account")


def _login(context: Context, client: str, env: dict[str, str]) -> Finding:
    login = claude.auth_status(Path(client), env)
    if not login.logged_in:
        return Finding("fail", "login", f"{login.detail or 'the client is not logged in'}: run `claude`, then /login")
    if login.method == "oauth_token" and is_of_terminal(context):
        return Finding(
            "warn",
            "login",
            "by this terminal's CLAUDE_CODE_OAUTH_TOKEN, which a runner that a session or the service starts does not"
            f" have: put that line into {context.paths.runner_env} (chmod 600), then 'restart'",
        )
    return Finding("ok", "login", f"logged in ({login.method})")


def is_of_terminal(context: Context) -> bool:
    """Whether a token that logs the client in is no lasting one: a runner that a session starts does not have it."""
    try:
        return "CLAUDE_CODE_OAUTH_TOKEN" not in ownenv.read(context.paths)
    except SchedulerError:
        return True
