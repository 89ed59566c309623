"""The real client in a terminal: started, looked at, typed into."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pexpect

PATIENCE = 60
_FORWARD = re.compile(r"\x1b\[(\d*)C")
_ESCAPE = re.compile(r"\x1b\[[0-9;:<=>?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|\x1b[=>78Mc]")


class Screen:
    """A client in a terminal. `raw` is all that it has written."""

    def __init__(self, process: pexpect.spawn[str]) -> None:
        self._process = process
        self.raw = ""

    @property
    def text(self) -> str:
        """What was written, without escape sequences, and with single spaces between words."""
        text = _FORWARD.sub(lambda found: " " * int(found[1] or 1), self.raw)
        return " ".join(_ESCAPE.sub(" ", text).split())

    def wait_for(self, words: str, patience: float = PATIENCE) -> None:
        """Read until the words are there, however the client broke and moved them; it may draw without an end."""
        end = time.monotonic() + patience
        while words not in self.text:
            try:
                left = end - time.monotonic()
                if left <= 0:
                    raise pexpect.TIMEOUT(words)
                self.raw += self._process.read_nonblocking(65536, timeout=left)
            except (pexpect.TIMEOUT, pexpect.EOF):
                raise AssertionError(f"waited in vain for {words!r}; the screen has: {self.text}") from None

    def send(self, keys: str) -> None:
        self._process.send(keys)

    def enter(self, line: str) -> None:
        """Type a line, and press Enter once it is there."""
        self.send(line)
        self.wait_for(line)
        self.send("\r")

    def leave(self) -> None:
        """Quit the client as a user does, and read on to the end of the terminal."""
        self.enter("/exit")
        try:
            while True:
                self.raw += self._process.read_nonblocking(65536, timeout=PATIENCE)
        except pexpect.EOF:
            self._process.wait()


def trust(home: Path, project: Path, key: str) -> None:
    """Have the client take its first steps for done: the tour, the key, the trust in the folder."""
    state = {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "customApiKeyResponses": {"approved": [key[-20:]], "rejected": []},
        "projects": {str(project): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
    }
    (home / ".claude.json").write_text(json.dumps(state))


@contextmanager
def client_screen(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Iterator[Screen]:
    """A client in a terminal of its own, below a shell as a user has one; ended at the end.

    The shell stays for two seconds after the client, so that what comes late is seen.
    """
    script = '"$@"; sleep 2'
    words = ["-c", script, "sh", *argv]
    process: pexpect.spawn[str] = pexpect.spawn(
        "/bin/sh", words, cwd=str(cwd), env={**env, "TERM": "xterm-256color"}, dimensions=(50, 200), encoding="utf-8"
    )
    try:
        yield Screen(process)
    finally:
        process.close(force=True)
