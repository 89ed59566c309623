"""How a run of the client can end, each with the verdict it must get: played with the real client in tests/e2e, and
from recordings of it (tests/golden/claude, made by tests/golden/record.py) in tests/unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as turn_with

from scheduler.core.record import Reason, Status
from tests.client import API_KEY, LOGGED_OUT, SUBSCRIPTION
from tests.standin import Turn, bad_key, failure, no_credit, overloaded, text, tool, usage_limit

RESETS_AT = 2_100_000_000


@dataclass(frozen=True)
class Scenario:
    """What the stand-in plays, how the client is called, and what is made of it."""

    turns: Sequence[Turn]
    reason: Reason | None
    execution: Mapping[str, object] = field(default_factory=dict)
    login: Mapping[str, str] = field(default_factory=lambda: API_KEY)
    files: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] | None = None
    subagent: Sequence[Turn] = ()
    returncode: int = 1

    @property
    def status(self) -> Status:
        return Status.SUCCESS if self.reason is None else Status.FAILURE


def _hook(event: str, output: str) -> dict[str, object]:
    command = {"type": "command", "command": f"echo '{output}'"}
    return {"hooks": {event: [{"hooks": [command]}]}}


SKIP = {"skipPermissions": True}

SCENARIOS = {
    "done": Scenario(
        [
            tool("Write", words="First a file.", file_path="new.txt", content="hello\n"),
            tool("Read", file_path="old.txt"),
            tool("Edit", file_path="old.txt", old_string="one", new_string="two"),
            text("Both files are in place.\n\nNothing else was needed."),
        ],
        None,
        files={"old.txt": "one\n"},
        returncode=0,
    ),
    "tool-failed": Scenario(
        [tool("Bash", command="echo no >&2; exit 3"), text("It failed.")], None, SKIP, returncode=0
    ),
    "subagent": Scenario(
        [
            tool("Agent", description="write", prompt="SUBAGENT: write it", subagent_type="general-purpose"),
            text("Waiting."),
            text("All done."),
        ],
        None,
        subagent=[tool("Write", file_path="sub.txt", content="s\n"), text("sub done", delay=0.3)],
        returncode=0,
    ),
    "denied": Scenario(
        [tool("Bash", command="curl example.invalid"), text("I could not.")], Reason.DENIED_TOOLS, returncode=0
    ),
    "denied-in-subagent": Scenario(
        [
            tool("Bash", command="curl one.invalid"),
            tool("Agent", description="try", prompt="SUBAGENT: try it", subagent_type="general-purpose"),
            text("Waiting."),
            text("All done."),
        ],
        Reason.DENIED_TOOLS,
        subagent=[tool("Bash", command="curl two.invalid"), text("sub done", delay=0.3)],
        returncode=0,
    ),
    "max-turns": Scenario([tool("Bash", command="true")], Reason.MAX_TURNS, {**SKIP, "maxTurns": 1}),
    "budget": Scenario([tool("Bash", command="true")], Reason.BUDGET, {**SKIP, "maxBudgetUsd": 0.0001}),
    "server-error": Scenario([failure(500)], Reason.API_ERROR),
    "overloaded": Scenario([overloaded()], Reason.OVERLOADED),
    "bad-key": Scenario([bad_key()], Reason.AUTH),
    "logged-out": Scenario([text("never asked")], Reason.AUTH, login=LOGGED_OUT),
    "credit": Scenario([no_credit()], Reason.CREDIT),
    "usage-limit": Scenario(
        [tool("Bash", command="true"), usage_limit(RESETS_AT)], Reason.USAGE_LIMIT, SKIP, SUBSCRIPTION
    ),
    "weekly-limit": Scenario([usage_limit(RESETS_AT, "seven_day")], Reason.USAGE_LIMIT, login=SUBSCRIPTION),
    "rate-limited": Scenario([failure(429, "rate_limit_error")], Reason.RATE_LIMITED),
    "busy": Scenario([failure(429, "rate_limit_error")], Reason.RATE_LIMITED, login=SUBSCRIPTION),
    "no-such-model": Scenario(
        [failure(404, "not_found_error", "model: no-such")], Reason.API_ERROR, {"model": "no-such"}
    ),
    "refusal": Scenario([turn_with(text("I will not."), stop_reason="refusal")], Reason.API_ERROR),
    "halted-by-a-hook": Scenario(
        [tool("Bash", command="true"), text("never reached")],
        Reason.AGENT_ERROR,
        SKIP,
        settings=_hook("PostToolUse", '{"continue": false, "stopReason": "halt"}'),
        returncode=0,
    ),
    "prompt-blocked": Scenario(
        [text("never asked")],
        Reason.AGENT_ERROR,
        settings=_hook("UserPromptSubmit", '{"decision": "block", "reason": "not today"}'),
        returncode=0,
    ),
    "slash-command-refused": Scenario(
        [text("never asked")],
        Reason.AGENT_ERROR,
        {"command": "/greet"},
        files={".claude/commands/greet.md": "!`curl example.invalid`\n\nSay hello.\n"},
        returncode=0,
    ),
}
