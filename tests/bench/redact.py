"""`scripts/bench redact`: how fast secrets are taken out of ordinary output, and that no text makes it slow.

Beside it, in the same run, a bare pass over the same bytes: cutting them into clean lines, which a log needs anyway.
The processor's time is measured, the best of some rounds, as other processes must not count.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from scheduler.core.plain import Lines
from scheduler.core.redact import Redactor
from tests.bench import figures
from tests.samples import ANNOUNCED, HEX, LOOK_ALIKES, PASSWORD, SHAPED, some

GOAL = 20.0  # MB/s (of 10^6 bytes) on ordinary output
LIMIT = 3.0  # seconds for a megabyte of the worst text
BEND = 2.7  # times as long that twice as much may take
CHUNK = 64 * 1024
WORDS = (
    "the agent has read the file and then it changed two functions so that every test passes again while nothing else "
    "in the module is touched because the request said to keep the public names as they are"
).split()

HOSTILE = (
    "sk- eyJ -eyJ glpat- xox A3T ghp_ AKIA :AA Q~ token token= token=\" token=f( token=$ secret key api_key= aapikey: "
    "<password> ://a: ://a:b@ bearer\t authorization: cookie:a= -u\ta: curl\t curl\t-u\ta:b\t PRIVATE hunter2 "
    "[REDACTED: [REDACTED:a] \\ = ' \" a"
).split(" ")  # fmt: skip
HOSTILE += ["token = ", "password: ", "curl ", "login a password ", "-----BEGIN PRIVATE" + " KEY-----", " "]


def ordinary(size: int) -> bytes:
    """Output as tools and agents print it, with a secret now and then."""
    chance = random.Random(7)
    path = lambda: "/".join(chance.choices(["src", "scheduler", "core", "tests", "unit", "node_modules"], k=4))  # noqa: E731
    makers: Sequence[Callable[[], str]] = (
        lambda: " ".join(chance.choices(WORDS, k=chance.randint(4, 18))),
        lambda: (
            f"2026-11-23T02:{chance.randint(10, 59)}:07.{chance.randint(100, 999)}Z INFO worker {chance.random():.6f} s"
        ),
        lambda: f"{path()}/test_{chance.choice(WORDS)}.py::test_{'_'.join(chance.choices(WORDS, k=5))} PASSED [ 42%]",
        lambda: (
            f"npm http fetch GET 200 https://registry.example/{chance.choice(WORDS)} {chance.randint(9, 999)}ms (cache)"
        ),
        lambda: f"commit {some(40, HEX)}",
        lambda: (
            f'    "{chance.choice(WORDS)}": {chance.randint(0, 99999)}, "input_tokens": {chance.randint(0, 99999)},'
        ),
        lambda: f"        self.{chance.choice(WORDS)} = {chance.choice(WORDS)}(key={chance.choice(WORDS)})",
        lambda: f"  CC  {path()}/{chance.choice(WORDS)}.o",
        lambda: f"{path()}/{chance.choice(WORDS)}.ts({chance.randint(1, 999)},7): error TS2345: no overload fits",
        lambda: "",
    )
    lines, length = list[str](), 0
    while length < size:
        line = chance.choice(makers)()
        if chance.random() < 0.0005:
            line += " " + chance.choice(SHAPED)[1]
        elif chance.random() < 0.0005:
            context, secret = chance.choice(ANNOUNCED)
            line = context.format(secret)
        elif chance.random() < 0.002:
            line = chance.choice(LOOK_ALIKES)
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines).encode()


def kinds(size: int) -> dict[str, bytes]:
    """The same by itself: each kind of output alone, so that a slow one does not hide among the others."""
    chance = random.Random(11)
    number = lambda: chance.randint(1, 999)  # noqa: E731
    source = "\n".join(path.read_text() for path in sorted(Path(figures.__file__).parents[2].glob("scheduler/*/*.py")))
    said = [{"type": "text", "text": source[at : at + 600]} for at in range(0, 300_000, 600)]
    makers: dict[str, Callable[[], str]] = {
        "a log": lambda: f"2026-11-23T02:07:07.{number():03d}Z INFO worker {chance.random():.6f} s done",
        "tests": lambda: f"tests/unit/test_a.py::test_a_thing_{number()}_works PASSED [ {chance.randint(1, 99)}%]",
        "npm": lambda: f"npm http fetch GET 200 https://registry.example/pkg-{number()} {number()}ms (cache)",
        "a compiler": lambda: f"gcc -O2 -Wall -Iinclude -c -o build/net/file{number()}.o drivers/net/file{number()}.c",
        "the client": lambda: json.dumps({"type": "assistant", "message": {"content": [chance.choice(said)]}}),
    }
    texts = {name: "\n".join(make() for _ in range(2000)) + "\n" for name, make in makers.items()}
    texts["source"] = source
    return {name: (text * (size // len(text) + 1))[:size].encode() for name, text in texts.items()}


def took(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the processor, the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def cut(data: bytes) -> list[list[str]]:
    """The bytes as clean lines, by the chunks in which they come."""
    reader = Lines()
    return [*(reader.feed(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)), reader.end()]


def redacted(redactor: Redactor, chunks: list[list[str]]) -> list[list[str]]:
    """The lines without their secrets."""
    stream = redactor.stream()
    return [stream.lines(lines) for lines in chunks]


def worst(redactor: Redactor, size: int) -> list[tuple[float, float, str]]:
    """Of each hostile text: seconds for so many bytes, how much longer twice as many take, and what it is made of."""
    found = []
    for piece in HOSTILE:
        text = piece * (size // len(piece))
        once = took(lambda text=text: redactor.text(text), 1)
        found.append((once, took(lambda text=text: redactor.text(text * 2), 1) / max(once, 0.01), piece))
    return sorted(found, reverse=True)


def main() -> int:
    """Measure; 0 where the goals are met."""
    parser = argparse.ArgumentParser(prog="scripts/bench redact", description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=8, help="of ordinary output (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="the best of which counts (%(default)s)")
    options = parser.parse_args()
    redactor = Redactor([PASSWORD, some(40), some(108), "correct horse battery staple"])
    print(figures.machine())
    data = ordinary(options.megabytes * 10**6)
    chunks = cut(data)
    bare = len(data) / 1e6 / took(lambda: cut(data), options.rounds)
    ours = len(data) / 1e6 / took(lambda: redacted(redactor, chunks), options.rounds)
    marks = sum(line.count("[REDACTED:") for lines in redacted(redactor, chunks) for line in lines)
    print(f"cut into clean lines     {bare:6.1f} MB/s   of {len(data) / 1e6:.0f} MB, {sum(map(len, chunks))} lines")
    print(f"redacted                 {ours:6.1f} MB/s   {marks} secrets")
    slowest = ours
    for name, some_data in kinds(options.megabytes * 10**6 // 4).items():
        cut_data = cut(some_data)
        rate = len(some_data) / 1e6 / took(lambda cut_data=cut_data: redacted(redactor, cut_data), options.rounds)
        print(f"  {name:20} {rate:8.1f} MB/s")
        slowest = min(slowest, rate)
    hostile = worst(redactor, 10**6)
    for seconds, growth, piece in hostile[:5]:
        print(f"1 MB of {piece!r:16} {seconds:6.2f} s      twice as much: {growth:.1f} times as long")
    bent = [piece for seconds, growth, piece in hostile if seconds > 0.05 and growth > BEND]
    met = slowest >= GOAL and hostile[0][0] < LIMIT and not bent
    print(f"goal: >= {GOAL:g} MB/s, the worst megabyte below {LIMIT:g} s and linear: {'met' if met else 'NOT met'}")
    if bent:
        print(f"not linear: {bent}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
