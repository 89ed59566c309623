"""Real processes that run a few lines of Python with this package in reach."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
_PROLOGUE = f"import os, sys\nsys.path.insert(0, {str(REPOSITORY)!r})\nargs = sys.argv[1:]\n"


def start(code: str, *args: object, site: bool = True, stdin: int | None = None) -> subprocess.Popen[str]:
    """A child that runs `code`; `args` is a list of str. `site` False: without third-party packages, and faster."""
    argv = [sys.executable, "-I", *([] if site else ["-S"]), "-c", _PROLOGUE + code, *map(str, args)]
    return subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def output(child: subprocess.Popen[str]) -> str:
    """What a child said, once it has ended well."""
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 0, said
    return said
