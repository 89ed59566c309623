"""The real client at the stand-in: a clean environment, and one run of it as the scheduler carries it out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.core.models import Execution, from_json
from scheduler.core.report import AgentReport
from scheduler.core.verdict import Verdict, judge_claude
from scheduler.execution import process
from scheduler.execution.claude import build_argv, build_prompt
from scheduler.execution.stream import ResultReader
from tests import canary
from tests.standin import StandIn

API_KEY = {"ANTHROPIC_API_KEY": "sk-ant-stand-in"}
SUBSCRIPTION = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-stand-in"}
LOGGED_OUT: dict[str, str] = {}
SECONDS = 60


def client_environment(home: Path, api: StandIn, login: Mapping[str, str] = API_KEY) -> dict[str, str]:
    """All that the client needs to work offline; `home` is its home, `login` one of the three above."""
    scratch = home / "tmp"
    scratch.mkdir(exist_ok=True)
    environment = {
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "PATH": os.environ["PATH"],
        **canary.ENVIRONMENT,
        "LANG": "C.UTF-8",
        "ANTHROPIC_BASE_URL": api.url,
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        **login,
    }
    if os.geteuid() == 0:
        environment["IS_SANDBOX"] = "1"  # Without it the client does not skip permissions for root.
    return environment


def execution(command: str = "do the work", **fields: Any) -> Execution:
    """A claude execution; fields by their JSON names."""
    made = from_json(Execution, json.dumps({"type": "claude", "command": command, **fields}))
    assert isinstance(made, Execution), made
    return made


@dataclass(frozen=True)
class Ran:
    """What became of one start of the client."""

    report: AgentReport
    verdict: Verdict
    log: str
    returncode: int
    stdout: bytes
    stderr: bytes


def run_client(
    client: Path,
    work: Execution,
    *,
    cwd: Path,
    env: Mapping[str, str],
    session_id: str,
    resume: bool = False,
    settings: Mapping[str, object] | None = None,
) -> Ran:
    """Start the client as the scheduler does, without a supervisor, and judge it."""
    argv = build_argv(client, work, session_id=session_id, resume=resume, settings=settings)
    done = process.run(argv, cwd=cwd, env=env, input=build_prompt(None, work.command), timeout=SECONDS, check=False)
    reader = ResultReader()
    log = [line for at in range(0, len(done.stdout), 65536) for line in reader.feed(done.stdout[at : at + 65536])]
    log += reader.end()
    code, signal = (done.returncode, None) if done.returncode >= 0 else (None, -done.returncode)
    last_words = done.stderr.decode("utf-8", "replace")
    verdict = judge_claude(reader.report(), code, signal, None, on_denied="fail", last_words=last_words)
    return Ran(reader.report(), verdict, "\n".join(log), done.returncode, done.stdout, done.stderr)
