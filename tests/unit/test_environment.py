from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import SchedulerError
from scheduler.execution.environment import DEFAULT_PATH, build_environment

RUN = {"SCHEDULER_RUN_ID": "run", "SCHEDULER_TASK_ID": "task", "SCHEDULER_PROJECT": "/project"}

PASSED = {
    "HOME": "/home/person",
    "USER": "person",
    "LANG": "C.UTF-8",
    "LC_TIME": "de_DE.UTF-8",
    "TERM": "dumb",
    "TZ": "Europe/Berlin",
    "TMPDIR": "/scratch",
    "SHELL": "/bin/bash",
    "XDG_CACHE_HOME": "/cache",
    "SCHEDULER_HOME": "/state",
    "HTTPS_PROXY": "http://proxy:3128",
    "no_proxy": "localhost",
    "NODE_EXTRA_CA_CERTS": "/ca.pem",
    "ANTHROPIC_API_KEY": "key",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
    "CLAUDE_CONFIG_DIR": "/home/person/.claude",
    "CLAUDE_CODE_OAUTH_TOKEN": "token",
    "CLAUDE_CODE_USE_BEDROCK": "1",
    "DISABLE_TELEMETRY": "1",
}

# What a runner that a hook of the client has started finds in its environment, and what else must not leak.
STRIPPED = {
    "AI_AGENT": "claude-code",
    "CLAUDECODE": "1",
    "CLAUDE_CODE_CHILD_SESSION": "1",
    "CLAUDE_CODE_ENTRYPOINT": "cli",
    "CLAUDE_CODE_MESSAGING_SOCKET": "/tmp/s",
    "CLAUDE_CODE_MESSAGING_TOKEN": "secret",
    "CLAUDE_CODE_SESSION_ATTENDED": "1",
    "CLAUDE_CODE_SESSION_ID": "id",
    "CLAUDE_EFFORT": "high",
    "CLAUDE_ENV_FILE": "/tmp/e",
    "CLAUDE_PID": "1",
    "CLAUDE_PLUGIN_ROOT": "/plugin",
    "CLAUDE_PROJECT_DIR": "/elsewhere",
    "GIT_DIR": "/elsewhere/.git",
    "IS_SANDBOX": "1",
    "LD_PRELOAD": "/x.so",
    "PYTHONPATH": "/x",
    "SCHEDULER_CRASH_AT": "claim",
    "SCHEDULER_RUN_ID": "another run",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "VIRTUAL_ENV": "/venv",
}


def test_what_is_named_passes_and_nothing_else() -> None:
    built = build_environment({**PASSED, **STRIPPED, "PATH": "/own"}, path="/bin", env_pass=(), task_env={}, run=RUN)
    assert built == {**PASSED, **RUN, "PATH": "/bin"}


def test_the_user_may_name_more() -> None:
    source = {"SSH_AUTH_SOCK": "/tmp/agent", "IS_SANDBOX": "1", "AWS_PROFILE": "work"}
    built = build_environment(
        source, path="/bin", env_pass=["SSH_AUTH_SOCK", "IS_SANDBOX", "NOT_SET"], task_env={}, run=RUN
    )
    assert built == {"SSH_AUTH_SOCK": "/tmp/agent", "IS_SANDBOX": "1", "PATH": "/bin", **RUN}


def test_the_later_wins() -> None:
    built = build_environment(
        {"LANG": "C", "TZ": "UTC"},
        path="/bin",
        env_pass=["SCHEDULER_TASK_ID"],
        task_env={"TZ": "Europe/Berlin", "CI": "1"},
        run=RUN,
        extra={"GIT_TRACE2_EVENT": "/trace", "CI": "2"},
    )
    assert built == {
        "LANG": "C", "TZ": "Europe/Berlin", "CI": "2", "GIT_TRACE2_EVENT": "/trace", "PATH": "/bin", **RUN
    }  # fmt: skip


@pytest.mark.parametrize(
    ("recorded", "own", "path"),
    [("/r", "/o", "/r"), (None, "/o", "/o"), (None, None, DEFAULT_PATH), ("", "", DEFAULT_PATH)],
)
def test_there_is_always_a_path(recorded: str | None, own: str | None, path: str) -> None:
    source = {} if own is None else {"PATH": own}
    assert build_environment(source, path=recorded, env_pass=["PATH"], task_env={}, run={})["PATH"] == path


def test_a_task_may_not_set_what_judges_it() -> None:
    with pytest.raises(SchedulerError, match="a task may not set ANTHROPIC_BASE_URL, PATH"):
        build_environment(
            {},
            path=None,
            env_pass=(),
            task_env={"PATH": "/evil", "ANTHROPIC_BASE_URL": "http://evil", "CI": "1"},
            run={},
        )


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True), st.text(max_size=5)))
def test_no_other_name_of_the_client_or_of_git_ever_passes(source: dict[str, str]) -> None:
    """E16."""
    built = build_environment(source, path=None, env_pass=(), task_env={}, run={})
    assert built.keys() - {"PATH"} <= source.keys()
    for name in built:
        assert not name.startswith(("GIT_", "LD_", "DYLD_", "PYTHON")) or name == "GIT_SSL_CAINFO"
