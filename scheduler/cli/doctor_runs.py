"""doctor, what runs need: the client and its login in the runner's environment, git, identity, remotes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from scheduler.cli import readiness
from scheduler.cli.patient import Check, Found, Patient
from scheduler.core import health
from scheduler.core.health import Finding
from scheduler.core.models import Task
from scheduler.errors import SchedulerError
from scheduler.execution import claude, git, process, refs, sandbox
from scheduler.execution.environment import build_environment
from scheduler.store import settings

PROBE = 8.0  # seconds for the client to answer, which is a slow starter on a busy machine
REMOTE = 4.0  # seconds for a remote to answer


def checks(patient: Patient) -> Iterator[Check]:
    """The checks of what runs need; each client once, each remote once."""
    yield Check("git", partial(_git, patient))
    for path, program in sorted(_clients(patient)):
        yield Check("client", partial(_client, patient, path, program))
        yield Check("login", partial(_login, patient, path, program))
    for root in patient.roots:
        yield Check(f"git in {root}", partial(_repository, patient, root))
        if any(task.enabled and task.execution.sandbox for task in _tasks(patient, root)):
            yield Check("sandbox", partial(_sandbox, patient, root))
        pushing = {task.execution.worktree.remote_name for task in _tasks(patient, root) if _pushes(task)}
        for remote in sorted(pushing):
            yield Check(f"push to {remote}", partial(_remote, patient, root, remote))


def _tasks(patient: Patient, root: str) -> tuple[Task, ...]:
    found = patient.config(root)
    return () if found is None else found.tasks


def _pushes(task: Task) -> bool:
    return task.enabled and task.execution.worktree.enabled and task.execution.worktree.push


def _uses_client(patient: Patient, root: str) -> bool:
    return any(task.execution.type == "claude" for task in _tasks(patient, root))


def _clients(patient: Patient) -> set[tuple[str, str]]:
    """(PATH of its runs, the client that was recorded) of each project that uses one; else what is to be found here."""
    found = set()
    for root in patient.roots:
        trusted = patient.known.get(root)
        if trusted is not None and _uses_client(patient, root):
            found.add((trusted.path, trusted.client or ""))
    return found or {(patient.context.env.get("PATH", ""), "")}


def _git(patient: Patient) -> Iterator[Found]:
    env = git.environment(patient.env)
    yield Found(health.git(os.fsdecode(process.run(["git", "--version"], env=env, timeout=PROBE).stdout)))


def _client(patient: Patient, path: str, recorded: str) -> Iterator[Found]:
    program = _program(path, recorded)
    if program is None:
        needed = any(_uses_client(patient, root) for root in patient.roots)
        gone = f"{recorded} is gone" if recorded else "no `claude` on the PATH that runs get"
        mend = "install Claude Code, then 'enable' again in each project"
        yield Found(Finding("fail" if needed else "warn", "client", gone, mend))
        return
    env = _environment(patient, path)
    found = health.client(claude.client_version(program, env, timeout=PROBE))
    yield Found(found._replace(text=f"{program}, {found.text}"))
    root_skips = any(task.execution.skip_permissions for root in patient.roots for task in _tasks(patient, root))
    if root_skips and os.geteuid() == 0 and env.get("IS_SANDBOX") != "1":
        text = "as root the client refuses to skip permissions, which tasks ask for"
        yield Found(Finding("fail", "client", text, "use another account, or take skipPermissions out of the tasks"))


def _login(patient: Patient, path: str, recorded: str) -> Iterator[Found]:
    program = _program(path, recorded)
    if program is None:
        return
    login = claude.auth_status(program, _environment(patient, path), timeout=PROBE)
    needed = any(_uses_client(patient, root) for root in patient.roots)
    if not login.logged_in:
        text = f"{login.detail or 'the client is not logged in'} (in the environment {patient.whose})"
        mend = f"run `claude`, then /login; or put a token into {patient.context.paths.runner_env}, then 'restart'"
        yield Found(Finding("fail" if needed else "warn", "login", text, mend))
    elif login.method == "oauth_token" and readiness.is_of_terminal(patient.context):
        text = "by a CLAUDE_CODE_OAUTH_TOKEN of a terminal, which a runner that a session starts does not have"
        mend = f"put that line into {patient.context.paths.runner_env} (chmod 600), then 'restart'"
        yield Found(Finding("warn", "login", text, mend))
    else:
        yield Found(Finding("ok", "login", f"logged in ({login.method}) in the environment {patient.whose}"))


def _program(path: str, recorded: str) -> Path | None:
    """As a run finds it."""
    return claude.find_client(path, recorded) if recorded else claude.find_client(path)


def _environment(patient: Patient, path: str) -> dict[str, str]:
    try:
        passed = settings.read(patient.context.paths).env_pass
    except SchedulerError:  # a check of its own says so
        passed = ()
    return build_environment(patient.env, path=path, env_pass=passed, task_env={}, run={})


def _repository(patient: Patient, root: str) -> Iterator[Found]:
    try:
        project = patient.project(root)
    except SchedulerError as error:
        yield Found(Finding("fail", "git", f"no task can run in {root}: {error.message}", error.hint))
        return
    name = os.path.basename(root)
    base, identity = readiness.base(project), readiness.identity(project)
    yield Found(base._replace(text=f"{name}: {base.text}"))
    mend = "" if identity.level == "ok" else "git config --global user.name NAME, and user.email likewise"
    yield Found(identity._replace(text=f"{name}: {identity.text}", mend=mend))


def _sandbox(patient: Patient, root: str) -> Iterator[Found]:
    trusted = patient.known.get(root)
    trouble = sandbox.trouble(trusted.path if trusted is not None else patient.env.get("PATH", ""))
    if trouble is not None:
        yield Found(Finding("fail", "sandbox", f"{os.path.basename(root)}: {trouble}", sandbox.INSTALL))
    else:
        yield Found(Finding("ok", "sandbox", f"{os.path.basename(root)}: bubblewrap works"))


def _remote(patient: Patient, root: str, remote: str) -> Iterator[Found]:
    project = patient.project(root)
    try:
        refs.reach(project, refs.check_remote(project, remote), REMOTE)
    except SchedulerError as error:
        mend = error.hint or f"see what is wrong: git -C '{root}' ls-remote {remote}"
        yield Found(Finding("fail", "push", f"{remote} of {root}: {error.message}", mend))
    else:
        yield Found(Finding("ok", "push", f"{remote} of {root} answers, unasked"))
