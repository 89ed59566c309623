"""Output that is endless, huge or no text (E6, E7): always drained, bounded on disk and in memory, in nobody's way."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.disk import files, paths
from scheduler.execution.flood import LINE_COST, OVERLAP, Flood
from scheduler.store import history, tasklog
from tests.command import Command
from tests.repos import git
from tests.rig import Rig, rig, shell_task
from tests.samples import some

SLACK = 1 << 20  # bytes of lines of our own, and of a line that passes a bound


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


def log_of(own: Rig, *, error: bool = False) -> bytes:
    """The log of the task `job`, with its parts."""
    path = paths.task_log(str(own.project), "job", error=error)
    return b"".join(Path(part).read_bytes() for part in [*files.rotated(path), path])


def memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


MB = 1000 * 1000
SOURCES = {
    "lines": ("yes", "y"),
    "zeros": ("cat /dev/zero", ""),
    "text": ("yes 'ok 17 - the tests of this part passed, and so did those of the next'", "ok 17 - the tests"),
    "one line": ("tr '\\0' x < /dev/zero", None),
}


@pytest.mark.parametrize("size", [100 * MB, pytest.param(1000 * MB, marks=pytest.mark.full)])
@pytest.mark.parametrize("source", SOURCES)
def test_of_endless_output_a_bounded_part_is_kept(own: Rig, source: str, size: int) -> None:
    """E6: beginning and end are there, what lies between is counted, and the runner stays small and answers."""
    command, text = SOURCES[source]
    own.enable(shell_task("job", f"echo the beginning; {command} | head -c {size}; echo; echo the end"))
    runner = own.start()
    begin, usual = time.monotonic(), memory(runner)
    run = own.run("job")
    slowest = 0.0
    while not any(one["id"] == run and one["status"] != "running" for one in own.records()):
        asked = time.monotonic()
        assert own.ask("status")["pid"] == runner
        slowest = max(slowest, time.monotonic() - asked)
        time.sleep(0.1)
        assert time.monotonic() - begin < 120
    record = own.record(run)
    assert record["status"] == "success" and record["output"].endswith("the end")
    print(f"{source}: {time.monotonic() - begin:.1f} s, slowest answer {slowest:.2f} s, "
          f"memory {usual / MB:.0f} MB, then {memory(runner) / MB:.0f} MB")  # fmt: skip
    assert memory(runner) - usual < 80 * MB and slowest < 3
    data = log_of(own)
    assert len(data) < tasklog.HEAD + tasklog.TAIL + SLACK
    lines = data.splitlines()
    assert any(b"the beginning" in one for one in lines[:3]) and any(b"the end" in one for one in lines[-5:])
    if text is not None:
        said = re.search(rb"\xe2\x80\xa6 (\d+) bytes dropped \xe2\x80\xa6", data)
        assert said is not None and 0.7 * size < int(said[1]) < size + tasklog.TAIL * 2
    else:
        assert b"characters cut]" in data or b"bytes dropped" in data
    if text:
        kept = [one for one in lines if text.encode() in one]
        assert len(kept) * LINE_COST > (tasklog.HEAD + tasklog.TAIL) / 3


STRANGE = r"""
printf 'bell \a back \b nul \0 delete \177 end\n'
printf '\033[31mred\033[0m \033]0;title\007 \033[2J\n'
printf '10%%\r50%%\r100%%\n'
printf 'not utf-8: \377\376 \303(\n'
printf 'turned \342\200\256 around, a line\342\200\250separator\n'
printf 'half a character at the end \342\202'
printf '\033[31merror\033[0m\r\n' >&2
"""


def test_strange_bytes_become_text(own: Rig) -> None:
    """E7: neither the log, the record nor the terminal of whoever reads them gets what is no text."""
    own.enable(shell_task("job", STRANGE))
    own.start()
    record = own.run_to_end("job")
    assert record["status"] == "success"
    data = log_of(own)
    said = [text.split("] ", 2)[2] for text in data.decode().splitlines()]
    assert [text for text in said if text.split()[0] in ("bell", "red", "100%", "not", "turned", "half")] == [
        "bell  back  nul  delete  end",
        "red  ",
        "100%",
        "not utf-8: \ufffd\ufffd \ufffd(",
        "turned  around, a lineseparator",
        "half a character at the end \ufffd",
    ]
    assert log_of(own, error=True).endswith(b" error\n")
    for text in (data.decode(), record["output"], Command(own.project, own.env)("logs", "job").out):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2028]", text)
    assert history.parse(history.to_line(record)) is not None


def passed(flood: Flood, pieces: list[bytes]) -> tuple[bytes, int, bytes, bytes]:
    head = b"".join(piece for piece in pieces if flood.passes("stdout", piece))
    rest = list(flood.pieces())
    gaps = [gap for _, gap, _ in rest if gap] or [(0, b"")]
    return (head, *gaps[0], b"".join(piece for *_, piece in rest))


@given(st.lists(st.binary(max_size=60) | st.just(b"\n"), max_size=60), st.integers(0, 300), st.integers(0, 300))
def test_nothing_is_dropped_without_being_counted(pieces: list[bytes], head: int, tail: int) -> None:
    data = b"".join(pieces)
    first, dropped, before, rest = passed(Flood(head, tail), pieces)
    assert data.startswith(first) and data.endswith(rest)
    assert len(first) + dropped + len(rest) == len(data)
    assert not dropped or before.endswith(b"\n")
    assert not dropped or data[: len(data) - len(rest)].endswith(before if rest else before[:-1])


def test_what_is_kept_begins_at_a_line_and_a_redaction_sees_what_comes_before_it() -> None:
    line = b"0123456789" * 10 + b"\n"
    data = line * 5000
    first, dropped, before, rest = passed(Flood(1000, 20_000), [data[at : at + 997] for at in range(0, len(data), 997)])
    assert len(first) < 3000 and 10_000 < len(rest) <= 20_000
    assert rest.startswith(line) and before.endswith(line) and OVERLAP <= len(before) < OVERLAP + 2000
    assert len(first) + dropped + len(rest) == len(data)


def test_what_two_streams_say_stays_in_its_order() -> None:
    flood = Flood(10, 10_000)
    assert flood.passes("stdout", b"x" * 20) and not flood.passes("stderr", b"a")
    said = [("stdout", b"b"), ("stderr", b"c"), ("stderr", b"d"), ("stdout", b"e")]
    assert not any(flood.passes(*piece) for piece in said)
    found = [("stderr", b"a"), ("stdout", b"b"), ("stderr", b"cd"), ("stdout", b"e")]
    assert list(flood.pieces()) == [(name, None, data) for name, data in found]
    assert list(flood.pieces()) == []


def test_the_beginning_of_a_stream_is_kept_though_another_floods_first() -> None:
    flood = Flood(1000, 10_000)
    assert flood.passes("stdout", b"x" * 2000 + b"\n")
    lines = [b"error %05d\n" % number for number in range(1000)]
    assert not any(flood.passes("stderr", one) for one in lines)
    before, after, dropped = b"", b"", 0
    for name, gap, data in flood.pieces():
        assert name == "stderr"
        dropped += gap.size if gap else 0
        before, after = (before, after + data) if dropped else (before + data, after)
    whole = b"".join(lines)
    assert before.startswith(lines[0] + lines[1]) and whole.startswith(before) and 100 < len(before) < 6000
    assert after.endswith(lines[-1]) and whole.endswith(after) and len(before) + dropped + len(after) == len(whole)


def test_a_flood_on_one_stream_leaves_the_other_its_beginning(own: Rig) -> None:
    own.enable(shell_task("job", "yes | head -c 20000000; seq -f 'error %.0f' 300000 >&2"))
    own.start()
    assert own.run_to_end("job")["status"] == "success"
    said = [text.split("] ", 2)[2] for text in log_of(own, error=True).decode().splitlines()]
    at = next(at for at, text in enumerate(said) if "bytes dropped" in text)
    assert at > 20_000 and len(said) - at > 80_000
    # The last line before it may be cut: what came at once ends anywhere.
    assert said[: at - 1] == [f"error {number}" for number in range(1, at)] and said[-1] == "error 300000"


def test_small_pieces_need_little_room() -> None:
    flood = Flood(1, 1 << 20)
    for number in range(300_000):
        flood.passes("stdout", b"x")
        if number % 100 == 0:
            flood.passes("stderr", b"y")
    assert sum(len(stream.held) for stream in flood._streams.values()) < 10_000
    said = list(flood.pieces())
    assert not any(gap for _, gap, _ in said) and sum(len(piece) for *_, piece in said) == 303_000 - 1


@pytest.mark.parametrize("size", [36, 37, 38])
def test_a_token_at_the_cut_is_not_kept(own: Rig, size: int) -> None:
    """H5: its beginning is on a line that passes, its end among what is dropped."""
    token = "ghp_" + some(size)
    own.enable(shell_task("job", f"yes $(cat token) | head -c 20000000; seq -f '%.0f {'-' * 80}' 200000"))
    (own.project / "token").write_text(token)
    git("add", "token", cwd=own.project)
    git("commit", "-qm", "token", cwd=own.project)
    own.start()
    assert own.run_to_end("job")["status"] == "success"
    data = log_of(own)
    assert token[:8].encode() not in data and token[-8:].encode() not in data and b"bytes dropped" in data
    assert "…\n".encode() in data


def test_a_private_key_at_the_cut_is_not_kept(own: Rig) -> None:
    """H5: its beginning is dropped, and what is left of it is taken out as well."""
    body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
    begin, end = "-----BEGIN RSA " + "PRIVATE KEY-----", "-----END RSA " + "PRIVATE KEY-----"
    key = f"echo '{begin}'; i=0; while [ $i -lt 40 ]; do echo {body}$i; i=$((i+1)); done; echo '{end}'"
    # Keys without a gap between them: wherever the cut comes, it comes into one.
    script = (
        f"({key}) > key; n=0; while [ $n -lt 9000 ]; do cat key key key key key key key key; n=$((n+8)); done; rm key"
    )
    own.enable(shell_task("job", script))
    own.start()
    record = own.run_to_end("job")
    assert record["status"] == "success", record
    data = log_of(own)
    assert body[:20].encode() not in data and b"[REDACTED:private-key]" in data and b"bytes dropped" in data
