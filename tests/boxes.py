"""Whether tests can have a sandbox here: they are skipped with a reason only where the system forbids one."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from scheduler.execution import sandbox


def need_sandbox() -> None:
    """Skip the test where user namespaces are not allowed, or bubblewrap is not there; with CI=true fail it where
    namespaces are allowed."""
    trouble = sandbox.trouble(os.environ["PATH"])
    if trouble is None:
        return
    allowed = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
    if os.environ.get("CI") == "true" and allowed:
        pytest.fail(f"there has to be a sandbox: {trouble}")
    pytest.skip(f"no sandbox here: {trouble}")


NOBODY = 65534
BECOME_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def open_to_nobody(place: Path, *own: Path) -> None:
    """Let another user reach a folder of the test's, and own some of what is in it; skipped where only root could."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    for folder in itertools.takewhile(lambda folder: folder != Path("/tmp"), (place, *place.parents)):
        folder.chmod(0o755)
    if own:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", *own], check=True)
