"""A program in the place of the client that does as it is told, call by call: for runs whose end a test must choose.

What the real client says in these cases is recorded in tests/golden/claude and played in tests/e2e.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_PROGRAM = """\
#!{python}
import json, os, sys, time
folder = {folder!r}
calls = os.path.join(folder, "calls.jsonl")
if sys.argv[1:] == ["auth", "status"]:
    print(open(os.path.join(folder, "login.json")).read())
    sys.exit()
task = os.environ["SCHEDULER_TASK_ID"]
before = [json.loads(line) for line in open(calls)] if os.path.exists(calls) else []
scripts = json.load(open(os.path.join(folder, "acts.json")))
acts = scripts.get(task, scripts[""])
act = acts[min(sum(call["task"] == task for call in before), len(acts) - 1)]
prompt = sys.stdin.read()
with open(calls, "a") as file:
    call = {{"task": task, "argv": sys.argv[1:], "prompt": prompt, "cwd": os.getcwd()}}
    file.write(json.dumps(call) + "\\n")
session = [word.partition("=")[2] for word in sys.argv if word.startswith(("--session-id=", "--resume="))][0]
def say(**message):
    print(json.dumps(message), flush=True)
say(type="system", subtype="init", session_id=session, model="puppet", claude_code_version="0.0.0")
for name, text in act.get("files", {{}}).items():
    with open(name, "w") as file:
        file.write(text)
time.sleep(act.get("seconds", 0))
if "limit" in act:
    ends = int(time.time() + act["limit"])
    info = {{"status": "rejected", "resetsAt": ends, "rateLimitType": "five_hour"}}
    say(type="rate_limit_event", rate_limit_info=info)
for message in act.get("messages", []):
    say(**message)
result = {{"subtype": "success", "is_error": False, "num_turns": 1, "result": "Done.", "total_cost_usd": 0.0}}
say(type="result", session_id=session, **{{**result, **act.get("result", {{}})}})
sys.exit(act.get("code", 0))
"""


class Puppet:
    """A client in `folder`; `path` is its program. What it does for a task, call by call, `plays` says."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.path = folder / "claude"
        self.path.write_text(_PROGRAM.format(python=sys.executable, folder=str(folder)))
        self.path.chmod(0o755)
        self._acts: dict[str, list[dict[str, Any]]] = {}
        self.plays(act())

    def plays(self, *acts: dict[str, Any], task: str = "") -> None:
        """For a task (empty: for each that has none of its own) these acts from its first call on, then the last."""
        self._acts[task] = list(acts)
        (self._folder / "acts.json").write_text(json.dumps(self._acts))

    def logged_in(self, yes: bool) -> None:
        """What it says when it is asked by `auth status`; until this is told it gives no answer."""
        answer = {"loggedIn": yes, "authMethod": "claude.ai" if yes else "none"}
        (self._folder / "login.json").write_text(json.dumps(answer))

    @property
    def calls(self) -> list[dict[str, Any]]:
        """How it was called so far: task, argv, prompt, cwd."""
        file = self._folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def calls_for(self, task: str) -> list[dict[str, Any]]:
        """Its calls for one task."""
        return [call for call in self.calls if call["task"] == task]


def act(cost: float = 0.0, **more: Any) -> dict[str, Any]:
    """It succeeds, at a cost in US dollars. More: `files` to write, `seconds` to take, `code` to end with."""
    return {"result": {"total_cost_usd": cost}, **more}


def refused(status: int | None, kind: str, text: str, cost: float = 0.0, **more: Any) -> dict[str, Any]:
    """The API refuses, in the way in which the client tells it."""
    said = {"type": "assistant", "error": kind, "message": {"content": [{"type": "text", "text": text}]}}
    result = {"is_error": True, "api_error_status": status, "result": text, "total_cost_usd": cost}
    return {"messages": [said], "result": result, "code": 1, **more}


def limited(ends_in: float, cost: float = 0.0, **more: Any) -> dict[str, Any]:
    """A subscription's limit, which ends `ends_in` seconds after the call, on a whole second."""
    return refused(429, "rate_limit", "You've hit your session limit", cost, limit=ends_in, **more)
