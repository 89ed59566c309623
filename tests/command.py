"""The real command line, as a person calls it: a process of its own, in a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import canary

PACKAGE = Path(__file__).resolve().parents[1] / "scheduler"


class Said:
    """What a call said and how it ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    @property
    def json(self) -> Any:
        """The answer of a call with --json."""
        return json.loads(self.out)


class Command:
    """Calls `scheduler VERB …` in a folder."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.env = dict(env)
        self.program = [sys.executable, "-I", str(PACKAGE)]

    def __call__(self, *words: object, code: int | None = 0, input: str = "", **env: str) -> Said:
        """One call; AssertionError unless it ends with `code` (None: with any)."""
        argv = [*self.program, *map(str, words)]
        environment = {**self.env, **env}
        done = subprocess.run(
            argv, cwd=self.folder, env=environment, input=input, capture_output=True, text=True, timeout=120
        )
        assert code is None or done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done)


def environment(home: Path, state: Path, **more: str) -> dict[str, str]:
    """The environment of a call: nothing of the one who runs the tests but the PATH."""
    variables = {"COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"} & os.environ.keys()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SCHEDULER_HOME": str(state),
        "LANG": "C.UTF-8",
        "TZ": "Europe/Berlin",
        **{name: os.environ[name] for name in variables},
        **canary.ENVIRONMENT,
        **more,
    }
