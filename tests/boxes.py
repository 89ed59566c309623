"""Whether tests can have a sandbox here: they are skipped with a reason only where the system forbids one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scheduler.execution import sandbox


def need_sandbox() -> None:
    """Skip the test where user namespaces are not allowed, or bubblewrap is not there; in CI that is a failure."""
    trouble = sandbox.trouble(os.environ["PATH"])
    if trouble is None:
        return
    limit = Path("/proc/sys/user/max_user_namespaces")
    forbidden = os.geteuid() != 0 and limit.exists() and limit.read_text().strip() == "0"
    if os.environ.get("CI") == "true" and not forbidden:
        pytest.fail(f"there has to be a sandbox: {trouble}")
    pytest.skip(f"no sandbox here: {trouble}")
