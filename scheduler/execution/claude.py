"""The client as an agent: where it is, how it is called, what it is asked, whether it is logged in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scheduler.core.models import Execution
from scheduler.errors import CommandFailed, SchedulerError
from scheduler.execution import process

PROGRAM = "claude"
GO_ON = b"""\
A usage limit stopped you in the middle of your work; it is over now. Look at what you have done so far, and go on with
the task that you were given until it is done.
"""
EDITING_TOOLS = "Write|Edit|MultiEdit|NotebookEdit"
_HOOK_SECONDS = 10
_PROBE_SECONDS = 30


@dataclass(frozen=True)
class LoginState:
    """Whether the client has a credential (not: whether the server still takes it)."""

    logged_in: bool
    method: str  # `api_key`, `oauth_token`, `claude.ai`, `third_party`, `none`; `unknown` where the client did not say
    detail: str = ""  # one line that says what stood in the way, where something did


def find_client(path_var: str, explicit: str | None = None) -> Path | None:
    """The client's program as an absolute path: `explicit`, or the first of `path_var` that can be executed.

    Folders are resolved, the program's own name is not: version managers choose what to start by the name of a link,
    and the client's updates replace what it points to. Look again at each start rather than keep the answer.
    """
    if explicit:
        candidates = [explicit]
    else:
        candidates = [os.path.join(folder, PROGRAM) for folder in path_var.split(os.pathsep) if os.path.isabs(folder)]
    for candidate in candidates:
        if os.path.isabs(candidate) and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            folder, name = os.path.split(candidate)
            return Path(os.path.realpath(folder), name)
    return None


def build_argv(
    binary: Path,
    execution: Execution,
    *,
    session_id: str,
    resume: bool = False,
    settings: Mapping[str, object] | None = None,
) -> list[str]:
    """The client's command line; the prompt goes to its standard input.

    Every value is joined to its flag by `=`: the client would read a value that begins with `-` as a flag, and what
    follows `--allowedTools` as one more tool.
    """
    argv = [str(binary), "-p", "--output-format=stream-json", "--verbose"]
    argv.append(f"--resume={session_id}" if resume else f"--session-id={session_id}")
    if execution.skip_permissions:
        argv.append("--dangerously-skip-permissions")
    else:
        argv.append(f"--permission-mode={execution.permission_mode}")
        argv += [f"--allowedTools={tool}" for tool in execution.allowed_tools]
    if execution.model is not None:
        argv.append(f"--model={execution.model}")
    if execution.max_turns is not None:
        argv.append(f"--max-turns={execution.max_turns}")
    if execution.max_budget_usd is not None:
        argv.append(f"--max-budget-usd={execution.max_budget_usd}")
    if settings is not None:
        argv.append(f"--settings={json.dumps(settings, separators=(',', ':'))}")
    return argv


def hook_settings(command: Sequence[str]) -> dict[str, object]:
    """Settings that make the client report each change of a file to `command` (an absolute program and its arguments).

    Settings reach the client however the plugin is installed, and also where it is not.
    """
    program, *arguments = command
    hook = {"type": "command", "command": program, "args": arguments, "timeout": _HOOK_SECONDS}
    return {"hooks": {"PostToolUse": [{"matcher": EDITING_TOOLS, "hooks": [hook]}]}}


def build_prompt(rules: str | None, command: str) -> bytes:
    """What the client is asked: the project's rules, if any, then the task's command."""
    parts = [part.strip("\n") for part in (rules or "", command) if part.strip()]
    return "\n\n".join(parts).encode("utf-8", "replace") + b"\n"


def auth_status(binary: Path, env: Mapping[str, str], timeout: float = _PROBE_SECONDS) -> LoginState:
    """Whether the client is logged in under `env`, by its own word (`claude auth status`; no network)."""
    try:
        done = process.run([str(binary), "auth", "status"], env=env, timeout=timeout, check=False)
    except CommandFailed as error:
        return LoginState(False, "unknown", error.message)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("loggedIn"), bool):
        return LoginState(False, "unknown", f"`{PROGRAM} auth status` gave no answer (exit code {done.returncode})")
    method = str(said.get("authMethod", "unknown"))
    if said["loggedIn"]:
        return LoginState(True, method)
    return LoginState(False, method, "the client is not logged in")


def client_version(binary: Path, env: Mapping[str, str], timeout: float = _PROBE_SECONDS) -> str:
    """The client's version, such as `2.1.330`. Raises SchedulerError where the program does not tell it."""
    done = process.run([str(binary), "--version"], env=env, timeout=timeout)
    words = done.stdout.decode("utf-8", "replace").split()
    if not words or not words[0][0].isdigit():
        raise SchedulerError(f"{binary} does not tell its version", "check the installation: run it with --version")
    return words[0]
