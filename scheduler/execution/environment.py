"""The environment of an agent: built from what is named here, never inherited."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from scheduler.core.named import names_secret
from scheduler.core.redact import Redactor
from scheduler.core.variables import refused_names
from scheduler.errors import SchedulerError

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_NAMES = frozenset(
    # who and where
    "HOME USER LOGNAME SHELL LANG LANGUAGE TERM TZ TMPDIR "
    "XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME SCHEDULER_HOME "
    # the way to the network
    "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy "
    "NODE_EXTRA_CA_CERTS NODE_USE_SYSTEM_CA SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE "
    "GIT_SSL_CAINFO PIP_CERT AWS_CA_BUNDLE NIX_SSL_CERT_FILE "
    "CLAUDE_CODE_CERT_STORE CLAUDE_CODE_CLIENT_CERT CLAUDE_CODE_CLIENT_KEY CLAUDE_CODE_CLIENT_KEY_PASSPHRASE "
    # the client's login
    "CLAUDE_CONFIG_DIR CLAUDE_CODE_OAUTH_TOKEN "
    # what the user has forbidden the client stays forbidden at night
    "DISABLE_AUTOUPDATER DISABLE_UPDATES DISABLE_TELEMETRY DISABLE_ERROR_REPORTING DO_NOT_TRACK "
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC".split()
)
_PREFIXES = ("ANTHROPIC_", "CLAUDE_CODE_USE_", "LC_")
_OF_A_SESSION = frozenset("USER LOGNAME SHELL TERM TMPDIR".split())
_PATHS_TO_SECRETS = frozenset(["CLAUDE_CODE_CLIENT_KEY"])
_MAY_HOLD_SECRETS = frozenset(["ANTHROPIC_CUSTOM_HEADERS"])


def build_environment(
    source: Mapping[str, str],
    *,
    path: str | None,
    env_pass: Sequence[str],
    task_env: Mapping[str, str],
    run: Mapping[str, str],
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a run's processes; the later wins.

    `source` is the runner's own, of which only the names above, those that begin as above and `env_pass` (the user's
    settings) pass; `path` the PATH recorded when the project was enabled; `run` the SCHEDULER_* names of the run;
    `extra` what the runner itself adds. Raises SchedulerError where a task sets what it may not.
    """
    refused = refused_names(task_env)
    if refused:
        raise SchedulerError(
            f"a task may not set {', '.join(refused)}", "set it in your own environment and name it in envPass"
        )
    allowed = _NAMES.union(env_pass)
    built = {name: value for name, value in source.items() if name in allowed or name.startswith(_PREFIXES)}
    built["PATH"] = path or source.get("PATH") or DEFAULT_PATH
    return {**built, **task_env, **run, **(extra or {})}


def of_process(pid: int) -> dict[str, str] | None:
    """The environment that a process of this user was started with; None where that cannot be seen (macOS)."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    pairs = (os.fsdecode(entry).partition("=") for entry in data.split(b"\0") if b"=" in entry)
    return {name: value for name, _, value in pairs}


def lasting(source: Mapping[str, str], env_pass: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What of an environment may be written down for a runner that a service starts, and the names of what may not:
    secrets, by name or look, and what the user's own settings pass on.
    """
    names = {name for name in source if name in _NAMES or name.startswith(_PREFIXES)} - _OF_A_SESSION
    kept = {name: source[name] for name in names | {"PATH"} & source.keys() if not _is_secret(name, source[name])}
    return kept, sorted((names | set(env_pass) & source.keys()) - kept.keys())


def _is_secret(name: str, value: str) -> bool:
    named = name in _MAY_HOLD_SECRETS or (names_secret(name) and name not in _PATHS_TO_SECRETS)
    return named or bool(Redactor(()).find(f"{name}={value}"))
