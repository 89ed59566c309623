from __future__ import annotations

import json
import os
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.execution.claude import build_argv, build_prompt, find_client, hook_settings
from scheduler.execution.stream import ResultReader
from tests.client import execution

GOLDEN = Path(__file__).parents[1] / "golden" / "claude"
RECORDINGS = sorted(GOLDEN.glob("*/*.jsonl"))
ID = str(uuid.UUID(int=1))
BINARY = Path("/opt/claude")


def program(folder: Path, name: str = "claude") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_client_is_the_first_on_the_path(tmp_path: Path) -> None:
    first, second = program(tmp_path / "a"), program(tmp_path / "b")
    (tmp_path / "c").mkdir()
    assert find_client(f"{tmp_path}/c:{tmp_path}/a:{tmp_path}/b") == first
    assert find_client(f"{tmp_path}/a", str(second)) == second
    assert find_client(f"{tmp_path}/c") is None
    assert find_client("") is None


def test_what_cannot_be_executed_is_no_client(tmp_path: Path) -> None:
    program(tmp_path / "a").chmod(0o644)
    (tmp_path / "b" / "claude").mkdir(parents=True)
    assert find_client(f"{tmp_path}/a:{tmp_path}/b") is None
    assert find_client("", str(tmp_path / "a" / "claude")) is None
    assert find_client(f"{tmp_path}/a", str(tmp_path / "missing")) is None


def test_relative_folders_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin")
    program(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert find_client(":bin:.") is None
    assert find_client("", "bin/claude") is None


def test_a_folder_is_resolved_and_a_link_keeps_its_name(tmp_path: Path) -> None:
    program(tmp_path / "versions", "shim")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "claude").symlink_to(tmp_path / "versions" / "shim")
    (tmp_path / "link").symlink_to(tmp_path / "bin")
    assert find_client(str(tmp_path / "link")) == Path(os.path.realpath(tmp_path)) / "bin" / "claude"


def test_the_least_is_asked_for_by_default() -> None:
    assert build_argv(BINARY, execution(), session_id=ID) == [
        "/opt/claude",
        "-p",
        "--output-format=stream-json",
        "--verbose",
        f"--session-id={ID}",
        "--permission-mode=acceptEdits",
    ]


def test_every_field_has_its_flag() -> None:
    full = execution(
        permissionMode="plan",
        allowedTools=["Read", "Bash(npm run *)", "--dangerously-skip-permissions"],
        model="sonnet",
        maxTurns=60,
        maxBudgetUsd=2.5,
    )
    assert build_argv(BINARY, full, session_id=ID, settings={"hooks": {}})[4:] == [
        f"--session-id={ID}",
        "--permission-mode=plan",
        "--allowedTools=Read",
        "--allowedTools=Bash(npm run *)",
        "--allowedTools=--dangerously-skip-permissions",
        "--model=sonnet",
        "--max-turns=60",
        "--max-budget-usd=2.5",
        '--settings={"hooks":{}}',
    ]


def test_skipping_permissions_leaves_none_to_name() -> None:
    argv = build_argv(BINARY, execution(skipPermissions=True, allowedTools=["Read"]), session_id=ID)
    assert argv[5:] == ["--dangerously-skip-permissions"]


def test_a_session_can_be_continued() -> None:
    argv = build_argv(BINARY, execution(), session_id=ID, resume=True)
    assert f"--resume={ID}" in argv
    assert not [word for word in argv if word.startswith("--session-id")]


def test_the_prompt_is_no_argument() -> None:
    assert not [word for word in build_argv(BINARY, execution("-p secret"), session_id=ID) if "secret" in word]


def test_the_hook_is_started_without_a_shell() -> None:
    settings = hook_settings(["/usr/bin/python3", "-I", "/a b/post_tool_use.py"])
    hook = {"type": "command", "command": "/usr/bin/python3", "args": ["-I", "/a b/post_tool_use.py"], "timeout": 10}
    assert settings == {"hooks": {"PostToolUse": [{"matcher": "Write|Edit|MultiEdit|NotebookEdit", "hooks": [hook]}]}}


@pytest.mark.parametrize(
    ("rules", "command", "prompt"),
    [
        (None, "Do it.", b"Do it.\n"),
        ("", "-x", b"-x\n"),
        (" \n", "/greet you\n", b"/greet you\n"),
        ("# Rules\nBe brief.\n", "\nDo it.\n\n", b"# Rules\nBe brief.\n\nDo it.\n"),
        (None, "  indented", b"  indented\n"),
        (None, "für \ud800", "für ?\n".encode()),
    ],
)
def test_rules_come_before_the_command(rules: str | None, command: str, prompt: bytes) -> None:
    assert build_prompt(rules, command) == prompt


def line(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


def read(data: bytes, size: int = 1 << 20, **options: int) -> tuple[ResultReader, list[str]]:
    reader = ResultReader(**options)
    log = [text for at in range(0, len(data), size) for text in reader.feed(data[at : at + size])]
    return reader, log + reader.end()


def newest(name: str) -> bytes:
    return (max(GOLDEN.iterdir()) / f"{name}.jsonl").read_bytes()


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_pieces_do_not_matter(recording: Path) -> None:
    data = recording.read_bytes()
    reader, log = read(data)
    for size in (1, 17, 4096):
        again, log_again = read(data, size)
        assert (again.report(), log_again) == (reader.report(), log)
    cut, log_cut = read(data.rstrip(b"\n"))
    assert (cut.report(), log_cut) == (reader.report(), log)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
def test_a_number_that_no_record_can_hold_is_none(number: str) -> None:
    data = b'{"type":"result","subtype":"success","is_error":false,"total_cost_usd":N,"num_turns":N,"duration_ms":N}\n'
    report = read(data.replace(b"N", number.encode()))[0].report()
    assert report.has_result and (report.cost_usd, report.turns, report.duration_ms) == (None, None, None)


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_recording_tells_who_it_was(recording: Path) -> None:
    report = read(recording.read_bytes())[0].report()
    assert report.has_result
    assert report.client_version == recording.parent.name
    assert report.session_id == "00000000-0000-4000-8000-000000000000"
    assert report.model
    assert report.turns is not None and report.cost_usd is not None and report.duration_ms is not None


def test_a_good_run_as_the_log_shows_it() -> None:
    reader, log = read(newest("done"))
    assert log == [
        f"session 00000000-0000-4000-8000-000000000000, claude-opus-5-5, client {reader.report().client_version}",
        "First a file.",
        "→ Write new.txt",
        "→ Read old.txt",
        "→ Edit old.txt",
        "Both files are in place.",
        "",
        "Nothing else was needed.",
        "= done, 4 turns, $0.0032",
    ]
    assert reader.report().result_text == "Both files are in place.\n\nNothing else was needed."


def test_a_subagent_in_the_background_ends_in_a_second_result() -> None:
    reader, log = read(newest("denied-in-subagent"))
    report = reader.report()
    assert report.denials == ("Bash", "Bash")
    assert report.result_text == "All done."
    assert report.turns == 4
    assert report.cost_usd == pytest.approx(json.loads(newest("denied-in-subagent").splitlines()[-1])["total_cost_usd"])
    assert "    → Bash curl two.invalid" in log
    assert [text for text in log if text.startswith("    ✗ Bash: Permission to use Bash has been denied.")]
    assert len([text for text in log if text.startswith("= done")]) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tool-failed", "✗ Bash: Exit code 3"),
        ("max-turns", "= failed (error_max_turns), 2 turns, $0.0008"),
        ("max-turns", "Reached maximum number of turns (1)"),
        ("overloaded", "= failed (HTTP 529), 1 turns, $0.0000"),
        ("usage-limit", "… usage limit five_hour reached, resets 2036-07-18 13:20 UTC"),
        ("busy", "… usage limit reached"),
    ],
)
def test_what_went_wrong_is_in_the_log(name: str, expected: str) -> None:
    assert expected in read(newest(name))[1]


def test_a_limit_has_a_name_and_an_end() -> None:
    report = read(newest("weekly-limit"))[0].report()
    assert (report.resets_at, report.limit_type) == (datetime(2036, 7, 18, 13, 20, tzinfo=timezone.utc), "seven_day")
    assert (report.error_kind, report.api_error_status) == ("rate_limit", 429)


def test_a_limit_that_lets_pass_again_is_forgotten() -> None:
    refused = line(type="rate_limit_event", rate_limit_info={"status": "rejected", "resetsAt": 1, "rateLimitType": "x"})
    allowed = line(type="rate_limit_event", rate_limit_info={"status": "allowed", "resetsAt": 1, "rateLimitType": "x"})
    assert read(refused)[0].report().limit_type == "x"
    assert read(refused + allowed)[0].report().limit_type is None


def test_an_error_that_it_got_over_is_forgotten() -> None:
    error = line(type="assistant", error="server_error", message={"content": []})
    subagents = line(type="assistant", error="rate_limit", parent_tool_use_id="t", message={"content": []})
    good = line(type="assistant", message={"content": [{"type": "text", "text": "on"}]})
    assert read(error + subagents)[0].report().error_kind == "server_error"
    assert read(error + good)[0].report().error_kind is None


def test_a_retry_is_told() -> None:
    said = line(
        type="system", subtype="api_retry", attempt=2, max_retries=10, retry_delay_ms=4200, error_status=529, error="x"
    )
    assert read(said)[1] == ["… the API refused (529); try 2 of 10 in 4 s"]


def test_what_a_resumed_session_had_cost_before_is_not_counted_again() -> None:
    usage = {"opus": {"costUSD": 0.25}, "haiku": {"costUSD": 0.5}}
    first = {"type": "result", "subtype": "success", "is_error": False, "total_cost_usd": 9.0}
    assert read(line(**first, model_usage_since_last_result=usage) * 2)[0].report().cost_usd == 1.5
    assert read(line(**first) * 2)[0].report().cost_usd == 9.0


def test_junk_goes_to_the_log_and_hurts_nothing() -> None:
    junk = b'warning: \x1b[31mred\x1b[0m\n[1, 2]\n\n{"type": "resu\n\xff\xfe\n' + b"[" * 100_000 + b"\n"
    reader, log = read(junk + newest("done"))
    assert log[:4] == ["warning: red", "[1, 2]", '{"type": "resu', "��"]
    assert log[4].startswith("[" * (16 * 1024)) and len(log[4]) < 21 * 1024
    assert reader.report().result_text.startswith("Both files")


def test_a_line_without_end_is_left_out() -> None:
    data = b"x" * 5000 + b"\n" + line(type="result", subtype="success", is_error=False, result="ok")
    for size in (100, 10_000):
        reader, log = read(data, size, max_line=1000)
        assert log == ["… a line of 5000 bytes was left out …", "= done, 0 turns, $0.0000"]
        assert reader.report().result_text == "ok"
    assert read(b"y" * 1000, max_line=1000)[1] == ["y" * 1000]
    assert read(b"y" * 1001, max_line=1000)[1] == ["… a line of 1001 bytes was left out …"]


def test_a_heartbeat_is_no_progress() -> None:
    reader = ResultReader()
    beat = b'{"type":"tool_progress","tool_name":"Bash","elapsed_time_seconds":30}\n'
    said = b'{"type":"assistant","message":{"content":[]}}\n'
    for data, expected in ((beat, False), (beat + b'{"type":"keep_alive"}\n', False), (said[:9], False)):
        reader.feed(data)
        assert reader.got_on is expected
    for data in (said[9:], beat + said + beat, b"a warning\n"):
        reader.feed(data)
        assert reader.got_on


def test_the_log_holds_no_control_bytes() -> None:
    said = line(
        type="assistant",
        message={
            "content": [
                {"type": "text", "text": "a\x1b[2Jb\r\nc\u202e"},
                {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "\n echo \x07 one\ntwo"}},
            ]
        },
    )
    assert read(said)[1] == ["ab", "c", "→ Bash echo  one"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    "type subtype message content is_error result errors permission_denials tool_name tool_use_id id "
                    "name input rate_limit_info status resetsAt num_turns total_cost_usd text retry_delay_ms error "
                    "model_usage_since_last_result costUSD".split()
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(["system", "assistant", "user", "rate_limit_event", "result"]),
    st.sampled_from(["init", "api_retry", "success"]),
)
def test_no_message_whatever_its_shape_is_too_much(body: Any, kind: str, subtype: str) -> None:
    fields = body if isinstance(body, dict) else {"message": {"content": [body]}, "rate_limit_info": body}
    reader, log = read(line(**{"subtype": subtype, **fields, "type": kind}))
    reader.report()
    assert all(isinstance(text, str) and "\n" not in text for text in log)
