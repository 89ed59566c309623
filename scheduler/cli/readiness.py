"""What a run will need, looked at before the first night does: commits, identity, remote, the client and its login."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from scheduler.cli.context import Context
from scheduler.core.models import Task
from scheduler.errors import SchedulerError
from scheduler.execution import claude, git, refs
from scheduler.execution.environment import build_environment
from scheduler.execution.git import Project
from scheduler.store import ownenv, settings


class Check(NamedTuple):
    """One finding. A `fail` makes every run fail that needs it; a `warn` may."""

    level: Literal["ok", "warn", "fail"]
    name: str
    text: str

    def line(self) -> str:
        """For people: the level as a word."""
        return f"{self.level.ljust(4)}  {self.name}: {self.text}"


def checks(context: Context, root: str, tasks: tuple[Task, ...], client: str | None) -> Iterator[Check]:
    """The findings for the tasks of a project; `client` is the path of the client that would be recorded."""
    project = git.find_project(root, context.env)
    yield _base(project)
    yield _identity(project)
    for remote in sorted({task.execution.worktree.remote_name for task in tasks if task.execution.worktree.push}):
        yield _remote(project, remote)
    if any(task.execution.type == "claude" for task in tasks):
        yield from _client(context, tasks, client)


def _base(project: Project) -> Check:
    commit = git.resolve(project, "HEAD")
    if commit is None:
        return Check("fail", "base", "the repository has no commits yet: commit something first")
    return Check("ok", "base", f"HEAD is {commit[:12]}")


def _identity(project: Project) -> Check:
    done = git.run(project.checkout, "var", "GIT_COMMITTER_IDENT", check=False)
    if done.returncode:
        return Check("warn", "git identity", "none is set: work is committed under a name of the scheduler's")
    return Check("ok", "git identity", git.text(done.stdout).rpartition(">")[0] + ">")


def _remote(project: Project, name: str) -> Check:
    try:
        refs.check_remote(project, name)
    except SchedulerError as error:
        return Check("fail", "push", f"{error.message}: {error.hint}")
    return Check("ok", "push", f"the remote {name} is known")


def _client(context: Context, tasks: tuple[Task, ...], client: str | None) -> Iterator[Check]:
    if client is None:
        yield Check("fail", "client", "no `claude` on the PATH: install Claude Code, then run 'enable' again")
        return
    yield Check("ok", "client", client)
    passed = settings.read(context.paths).env_pass
    own = ownenv.read(context.paths)
    source = {**context.env, **own}
    env = build_environment(source, path=context.env.get("PATH"), env_pass=passed, task_env={}, run={})
    yield _login(context, client, env, lasting="CLAUDE_CODE_OAUTH_TOKEN" in own)
    if os.geteuid() == 0 and env.get("IS_SANDBOX") != "1" and any(task.execution.skip_permissions for task in tasks):
        yield Check("fail", "permissions", "as root the client refuses to skip permissions: use another account")


def _login(context: Context, client: str, env: dict[str, str], *, lasting: bool) -> Check:
    login = claude.auth_status(Path(client), env)
    if not login.logged_in:
        return Check("fail", "login", f"{login.detail or 'the client is not logged in'}: run `claude`, then /login")
    if login.method == "oauth_token" and not lasting:
        return Check(
            "warn",
            "login",
            "by this terminal's CLAUDE_CODE_OAUTH_TOKEN, which a runner that a session or the service starts does not"
            f" have: put that line into {context.paths.runner_env} (chmod 600), then 'restart'",
        )
    return Check("ok", "login", f"logged in ({login.method})")
