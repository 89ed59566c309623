"""A real `systemd --user` of a test's own, in a mount namespace where it finds a /run that it may use.

It needs root, util-linux and systemd (not a machine that was booted by it); `.ci/run` brings them in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TOOLS = ("systemd", "systemctl", "unshare", "nsenter")
BEGIN = """\
mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/user/0 && chmod 700 /run/user/0 &&
exec systemd --user
"""


def why_not() -> str | None:
    """Why there can be none here; None where there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if os.getuid() != 0:
        return "only root may make a mount namespace with a /run of its own"
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/run"], capture_output=True, text=True)
    return f"no mount namespace: {done.stderr.strip()}" if done.returncode else None


class Manager:
    """The living manager."""

    def __init__(self, pid: int, env: Mapping[str, str]) -> None:
        self.env = {**env, "XDG_RUNTIME_DIR": "/run/user/0"}
        self.pid = pid
        self.prefix = ["nsenter", "-t", str(pid), "-m", "--"]

    def systemctl(self, *words: str) -> str:
        """What `systemctl --user` says to some words; with its exit code where that is not 0."""
        argv = [*self.prefix, "systemctl", "--user", "--no-pager", *words]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else f"{done.stdout.strip()} [{done.returncode}]"


@contextmanager
def manager(folder: Path, env: Mapping[str, str]) -> Iterator[Manager]:
    """One for the HOME of `env`; its log is in `folder`."""
    with (folder / "systemd.log").open("wb") as log:
        child = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", BEGIN],
            env={**env, "XDG_RUNTIME_DIR": "/run/user/0", "SYSTEMD_LOG_TARGET": "console"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    made = Manager(child.pid, env)
    try:
        end = time.monotonic() + 30
        while made.systemctl("is-system-running") != "running":
            assert child.poll() is None and time.monotonic() < end, (folder / "systemd.log").read_text()
            time.sleep(0.05)
        yield made
    finally:
        made.systemctl("exit")
        try:
            child.wait(120)
        finally:
            child.kill()
            child.wait()
