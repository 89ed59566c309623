"""Pictures of the real client in a real terminal, for the docs: `python -m tests.pictures --client PATH`.

Needs tmux, whose screen is drawn as it is. The client talks to a stand-in on this machine and costs nothing.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.client import API_KEY, client_environment
from tests.plugin import ROOT
from tests.rig import Rig, rig, shell_task, wait_until
from tests.standin import StandIn
from tests.terminal import trust

IMAGES = ROOT / "docs" / "images"
WIDTH, LOW, HIGH = 150, 16, 40


def cron(expression: str) -> dict[str, str]:
    return {"type": "cron", "expression": expression, "timezone": "UTC"}


TASKS: tuple[dict[str, Any], ...] = (
    shell_task("update-dependencies", "echo 'requests 2.32' > deps.txt; echo done", trigger=cron("0 2 * * 1-5")),
    shell_task("tidy-changelog", "echo '# Changes' > CHANGES.md", trigger=cron("30 6 * * *")),
    shell_task("flaky-tests", "echo half > report.txt; echo '3 tests failed' >&2; exit 1", trigger=cron("0 5 * * 1")),
)


class Terminal:
    """A shell in a tmux of its own."""

    def __init__(self, folder: Path, cwd: Path, env: Mapping[str, str]) -> None:
        self._socket = str(folder / "tmux")
        shell = {**env, "PS1": "$ ", "TERM": "xterm-256color"}
        words = ["-f", os.devnull, "new-session", "-d", "-x", str(WIDTH), "-y", str(LOW), "-c", str(cwd)]
        self._tmux(*words, "env", "-i", *(f"{name}={value}" for name, value in shell.items()), "sh", "-i")
        self.wait_for("$")

    def _tmux(self, *words: str) -> str:
        argv = ["tmux", "-S", self._socket, *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def type(self, text: str) -> None:
        """Type a line and press Enter, once it is on the screen."""
        self._tmux("send-keys", "-l", text)
        self.wait_for(text)
        time.sleep(0.5)
        self._tmux("send-keys", "Enter")

    def wait_for(self, words: str) -> None:
        """Wait until the words are on the screen, and the screen has come to rest."""
        try:
            wait_until(lambda: words in " ".join(self._screen().split()))
        except AssertionError:
            raise AssertionError(f"{words!r} did not come; the screen has:\n{self._screen()}") from None

    def _screen(self, *options: str) -> str:
        return self._tmux("capture-pane", "-p", *options)

    def picture(self, name: str, title: str) -> None:
        """Draw the screen, without the empty lines below."""
        time.sleep(1.5)
        screen = Text.from_ansi(self._screen("-e").rstrip())
        console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        console.print(screen, no_wrap=True, crop=False)
        svg = console.export_svg(title=title, theme=MONOKAI, unique_id=name)
        svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # nothing is fetched to show it
        IMAGES.mkdir(exist_ok=True)
        (IMAGES / f"{name}.svg").write_text(svg)

    def heighten(self) -> None:
        self._tmux("resize-window", "-y", str(HIGH))

    def end(self) -> None:
        self._tmux("kill-server")


@contextmanager
def terminal(own: Rig, client: str, folder: Path, api: StandIn) -> Iterator[Terminal]:
    """A shell in the project, with `claude` in its PATH: the client with the plugin."""
    trust(own.home, own.project, API_KEY["ANTHROPIC_API_KEY"])
    programs = folder / "bin"
    programs.mkdir()
    words = f'exec "{client}" --plugin-dir "{ROOT}" --permission-mode default "$@"'
    (programs / "claude").write_text(f"#!/bin/sh\n{words}\n")
    (programs / "claude").chmod(0o755)
    env = {**client_environment(own.home, api), **own.env}
    shown = Terminal(folder, own.project, {**env, "PATH": f"{programs}:{env['PATH']}"})
    try:
        yield shown
    finally:
        shown.end()


@contextmanager
def place(name: str) -> Iterator[tuple[Rig, Path]]:
    """A home and a project of that name."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    try:
        with rig(folder, {"XDG_CACHE_HOME": str(folder / "cache")}) as own:
            own.project = own.project.rename(folder / name)
            yield own, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start_and_status(client: str) -> None:
    with place("web-shop") as (own, folder), StandIn() as api:
        own.enable(*TASKS)
        scheduler = [ROOT / "scripts" / "scheduler", "enable", "--yes", "--no-start"]
        subprocess.run(scheduler, cwd=own.project, env=own.env, check=True, capture_output=True)
        own.start()
        for task in TASKS:
            own.run_to_end(task["id"])
        wait_until(lambda: '"failed"' in Path(own.paths.glance).read_text())
        with terminal(own, client, folder, api) as shown:
            shown.type("claude")
            shown.wait_for("To review: 2 branches")
            shown.picture("start", "A session starts")
            shown.heighten()
            shown.type("/scheduler:status")
            shown.wait_for("needs you")
            shown.picture("status", "/scheduler:status, answered without the model")
            shown.type("/exit")
            shown.wait_for("$ ")


def end(client: str) -> None:
    with place("web-shop") as (own, folder), StandIn() as api:
        own.enable(*TASKS)
        Path(own.paths.trust).unlink()
        with terminal(own, client, folder, api) as shown:
            shown.type("claude")
            shown.wait_for("3 tasks here are not enabled")
            shown.type("/exit")
            shown.wait_for("3 tasks of web-shop not enabled")
            shown.picture("end", "A session ends with tasks that nobody runs")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--client", required=True, metavar="PATH", help="the real client")
    client = os.path.abspath(parser.parse_args().client)
    end(client)
    start_and_status(client)
    return 0


if __name__ == "__main__":
    sys.exit(main())
