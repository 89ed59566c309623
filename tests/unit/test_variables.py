from __future__ import annotations

import pytest

from scheduler.core.variables import refused_names


@pytest.mark.parametrize(
    "name",
    "PATH HOME SHELL TMPDIR BASH_ENV ENV IFS IS_SANDBOX ANTHROPIC_BASE_URL ANTHROPIC_API_KEY ANTHROPIC_UNIX_SOCKET "
    "CLAUDE_CONFIG_DIR CLAUDECODE CLAUDE_CODE_SHELL_PREFIX CLAUDE_CODE_OAUTH_TOKEN GIT_DIR GIT_CONFIG_COUNT "
    "LD_PRELOAD LD_LIBRARY_PATH DYLD_INSERT_LIBRARIES SCHEDULER_HOME SCHEDULER_RUN_ID XDG_STATE_HOME XDG_CONFIG_HOME "
    "HTTPS_PROXY https_proxy No_Proxy NODE_OPTIONS NODE_EXTRA_CA_CERTS SSL_CERT_FILE PYTHONSTARTUP PYTHONHOME".split(),
)
def test_what_changes_the_judge_is_refused(name: str) -> None:
    assert refused_names([name]) == [name]


def test_what_only_the_work_reads_is_not() -> None:
    names = [
        "CI",
        "NODE_ENV",
        "PYTHONPATH",
        "PYTHONUNBUFFERED",
        "DATABASE_URL",
        "PATHS",
        "GITHUB_TOKEN",
        "TZ",
        "LDFLAGS",
    ]
    assert refused_names(names) == []


def test_the_refused_come_sorted() -> None:
    assert refused_names({"PATH": "", "CI": "", "GIT_DIR": "", "HOME": ""}) == ["GIT_DIR", "HOME", "PATH"]
