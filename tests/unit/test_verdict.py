from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from scheduler.core.record import Reason, Status
from scheduler.core.report import AgentReport
from scheduler.core.verdict import Stopped, judge_claude, judge_shell
from scheduler.execution.stream import ResultReader
from tests.scenarios import RESETS_AT, SCENARIOS

GOLDEN = Path(__file__).parents[1] / "golden" / "claude"
RECORDINGS = sorted(GOLDEN.glob("*/*.jsonl"))
RESET = datetime.fromtimestamp(RESETS_AT, timezone.utc)

DONE = AgentReport(has_result=True, subtype="success", terminal_reason="completed", turns=3, result_text="Done.")
ERROR = replace(DONE, is_error=True, result_text="API Error: words that decide nothing")


def read(recording: Path) -> AgentReport:
    reader = ResultReader()
    reader.feed(recording.read_bytes())
    reader.end()
    return reader.report()


def test_there_is_a_recording_of_each_scenario_by_each_client() -> None:
    assert {path.relative_to(GOLDEN).as_posix() for path in RECORDINGS} == {
        f"{folder.name}/{name}.jsonl" for folder in GOLDEN.iterdir() for name in SCENARIOS
    }
    assert len(list(GOLDEN.iterdir())) == 2


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_recording_gets_its_verdict(recording: Path) -> None:
    scenario = SCENARIOS[recording.stem]
    verdict = judge_claude(read(recording), scenario.returncode, None, None)
    assert (verdict.status, verdict.reason) == (scenario.status, scenario.reason)
    assert (verdict.error is None) == (scenario.reason is None)
    assert verdict.resets_at == (RESET if scenario.reason is Reason.USAGE_LIMIT else None)


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_neither_the_words_nor_a_small_exit_code_decide(recording: Path) -> None:
    """E12."""
    scenario = SCENARIOS[recording.stem]
    report = replace(read(recording), result_text="Credit balance is too low. Please run /login. 429", errors=())
    for code in (0, 1, 2):
        assert judge_claude(report, code, None, None, last_words="Not logged in").reason == scenario.reason


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (replace(ERROR, error_kind="oauth_org_not_allowed"), Reason.AUTH),
        (replace(ERROR, error_kind="authentication_failed", api_error_status=403), Reason.AUTH),
        (replace(ERROR, error_kind="invalid_request", error_detail="org_disabled_credential"), Reason.AUTH),
        (replace(ERROR, api_error_status=401), Reason.AUTH),
        (replace(ERROR, error_kind="unknown", api_error_status=402), Reason.CREDIT),
        (replace(ERROR, error_kind="rate_limit", error_detail="model_requires_usage_credits"), Reason.CREDIT),
        (replace(ERROR, error_kind="overloaded"), Reason.OVERLOADED),
        (replace(ERROR, error_kind="server_error", api_error_status=529), Reason.OVERLOADED),
        (replace(ERROR, error_kind="rate_limit", resets_at=RESET), Reason.USAGE_LIMIT),
        (replace(ERROR, error_kind="rate_limit", limit_type="seven_day"), Reason.USAGE_LIMIT),
        (replace(ERROR, error_kind="rate_limit", error_detail="usage_limit_reached"), Reason.USAGE_LIMIT),
        (replace(ERROR, error_kind="rate_limit"), Reason.RATE_LIMITED),
        (replace(ERROR, api_error_status=429), Reason.RATE_LIMITED),
        # A limit that was refused earlier in the run is not what ended it.
        (replace(ERROR, error_kind="server_error", api_error_status=500, resets_at=RESET), Reason.API_ERROR),
        (replace(ERROR, error_kind="max_output_tokens"), Reason.API_ERROR),
        (replace(ERROR, error_kind="a kind of tomorrow"), Reason.API_ERROR),
        (replace(ERROR, terminal_reason="api_error"), Reason.API_ERROR),
        (ERROR, Reason.AGENT_ERROR),
        (replace(ERROR, subtype="error_during_execution", terminal_reason="aborted_tools"), Reason.AGENT_ERROR),
        (replace(ERROR, subtype="error_max_turns"), Reason.MAX_TURNS),
        (replace(ERROR, subtype="error_max_budget_usd"), Reason.BUDGET),
        (replace(ERROR, subtype=None), Reason.AGENT_ERROR),
        # A subtype of tomorrow without an error flag is no success.
        (replace(DONE, subtype="error_of_tomorrow"), Reason.AGENT_ERROR),
        (replace(DONE, terminal_reason="aborted_streaming"), Reason.AGENT_ERROR),
        (replace(DONE, terminal_reason="tool_deferred"), Reason.AGENT_ERROR),
        (replace(DONE, turns=0), Reason.AGENT_ERROR),
        (replace(DONE, denials=("Bash",)), Reason.DENIED_TOOLS),
        (AgentReport(), Reason.NO_RESULT),
        (AgentReport(error_kind="server_error"), Reason.NO_RESULT),
        (DONE, None),
        (replace(DONE, terminal_reason="stop_hook_prevented"), None),
        (replace(DONE, terminal_reason="a reason of tomorrow"), None),
        (replace(DONE, terminal_reason=None), None),
        (replace(DONE, turns=None), None),
        # It got over an error on the way.
        (replace(DONE, error_kind="rate_limit", resets_at=RESET), None),
    ],
)
def test_the_fields_decide(report: AgentReport, reason: Reason | None) -> None:
    verdict = judge_claude(report, 1, None, None)
    assert verdict.reason == reason
    assert verdict.status == (Status.SUCCESS if reason is None else Status.FAILURE)
    assert verdict.resets_at == (report.resets_at if reason is Reason.USAGE_LIMIT else None)


def test_a_denied_tool_may_be_accepted() -> None:
    report = replace(DONE, denials=("Bash", "Write", "Bash"))
    assert judge_claude(report, 0, None, None, on_denied="accept").status is Status.SUCCESS
    assert judge_claude(report, 0, None, None).error == "tools were denied: Bash ×2, Write"


def test_what_is_told_is_one_line() -> None:
    many = replace(ERROR, errors=("\n first line \nsecond line",))
    assert judge_claude(many, 1, None, None).error == "first line"
    long = replace(ERROR, result_text="x" * 1000)
    assert judge_claude(long, 1, None, None).error == "x" * 299 + "…"
    silent = replace(ERROR, result_text="")
    assert judge_claude(silent, 1, None, None).error == "the client failed and did not say why"


def test_without_a_result_the_last_words_are_quoted() -> None:
    verdict = judge_claude(AgentReport(), 1, None, None, last_words="error: unknown option '--nosuch'\n")
    assert verdict.error == "the client ended without a result (exit code 1): error: unknown option '--nosuch'"
    assert judge_claude(AgentReport(), None, None, None).error == "the client ended without a result"


@pytest.mark.parametrize(
    ("returncode", "signal", "words"),
    [(None, 9, "killed by SIGKILL"), (143, None, "killed by SIGTERM"), (129, None, "killed by SIGHUP")],
)
def test_a_killed_client_did_not_succeed_whatever_it_had_said(
    returncode: int | None, signal: int | None, words: str
) -> None:
    for report in (AgentReport(), DONE):
        verdict = judge_claude(report, returncode, signal, None)
        assert (verdict.status, verdict.reason, verdict.error) == (Status.FAILURE, Reason.SIGNAL, words)
    limited = replace(ERROR, error_kind="rate_limit", resets_at=RESET)
    assert judge_claude(limited, returncode, signal, None).reason is Reason.USAGE_LIMIT


STOPS: list[tuple[Stopped, Status, Reason | None]] = [
    ("timeout", Status.TIMEOUT, None),
    ("stalled", Status.TIMEOUT, Reason.STALLED),
    ("cancelled", Status.FAILURE, Reason.CANCELLED),
    ("crashed", Status.FAILURE, Reason.CRASHED),
]


@pytest.mark.parametrize(("stopped", "status", "reason"), STOPS)
@pytest.mark.parametrize("detail", ["", "stopped after 30 s"])
def test_what_we_stopped_is_judged_by_why_we_did(
    stopped: Stopped, status: Status, reason: Reason | None, detail: str
) -> None:
    verdicts = (
        judge_claude(DONE, None, 15, stopped, detail=detail),
        judge_claude(ERROR, 0, None, stopped, detail=detail),
        judge_shell(0, None, stopped, detail=detail),
        judge_shell(None, 9, stopped, detail=detail),
    )
    for verdict in verdicts:
        assert (verdict.status, verdict.reason) == (status, reason)
        assert verdict.error == detail if detail else verdict.error


def test_what_could_not_be_started() -> None:
    assert judge_claude(AgentReport(), None, None, "not-started").reason is Reason.CLIENT_MISSING
    assert judge_shell(None, None, "not-started", detail="no memory").error == "no memory"


@pytest.mark.parametrize(
    ("returncode", "signal", "status", "reason", "error"),
    [
        (0, None, Status.SUCCESS, None, None),
        (1, None, Status.FAILURE, Reason.EXIT_CODE, "ended with code 1"),
        (137, None, Status.FAILURE, Reason.EXIT_CODE, "ended with code 137"),
        (None, 9, Status.FAILURE, Reason.SIGNAL, "killed by SIGKILL"),
        (None, 63, Status.FAILURE, Reason.SIGNAL, "killed by signal 63"),
        (None, None, Status.FAILURE, Reason.CRASHED, "nobody saw it end"),
    ],
)
def test_a_shell_command_is_judged_by_its_code(
    returncode: int | None, signal: int | None, status: Status, reason: Reason | None, error: str | None
) -> None:
    verdict = judge_shell(returncode, signal, None)
    assert (verdict.status, verdict.reason, verdict.error) == (status, reason, error)
