"""The plugin as the real client manages it: a copy of what git holds of it, and `claude plugin …`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120


def copy_plugin(folder: Path) -> Path:
    """Copy the files that git knows, as they are now."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, os.fsdecode(files).split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
            target.chmod((ROOT / name).stat().st_mode)
    return folder


def plugin(client: Path, env: Mapping[str, str], *words: str) -> str:
    """`claude plugin …`, which must succeed; what it says."""
    done = subprocess.run([str(client), "plugin", *words], env=dict(env), capture_output=True, timeout=SECONDS)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
