"""The life of the plugin in the real client: the first start, an update while a run is under way, the end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler import __version__
from scheduler.runner import control
from tests.client import API_KEY, client_environment
from tests.command import Command
from tests.plugin import ROOT, copy_plugin, plugin
from tests.rig import Rig, rig, shell_task, wait_until
from tests.standin import StandIn
from tests.terminal import client_screen, trust

NEWER = "0.1.1"
NAME = "scheduler@claude-scheduler"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, {"XDG_CACHE_HOME": str(tmp_path / "cache")}) as made:
        trust(made.home, made.project, API_KEY["ANTHROPIC_API_KEY"])
        yield made


def status(own: Rig) -> dict[str, Any] | None:
    """What the runner says; None where there is none."""
    return control.request(own.paths, {"verb": "status"})


def test_the_first_start_before_anything_is_set_up_says_what_to_do_and_does_nothing(client: Path, own: Rig) -> None:
    with StandIn() as api:
        env = {**client_environment(own.home, api), **own.env}
        plugin(client, env, "marketplace", "add", str(ROOT))
        plugin(client, env, "install", NAME)
        with client_screen([str(client)], own.project, env) as screen:  # there are no tasks yet
            screen.wait_for("Scheduler: installed, nothing is scheduled yet. Say what to do and when")
            screen.leave()
        own.enable(shell_task("nightly", "true"))
        Path(own.paths.trust).unlink()
        with client_screen([str(client)], own.project, env) as screen:
            screen.wait_for("Scheduler: 1 task here is not enabled. /scheduler:enable sets it up, shows what would run")
            screen.leave()
        assert [request for request in api.turns if request.is_turn] == []
    assert not Path(own.env["XDG_CACHE_HOME"]).exists() or not list(Path(own.env["XDG_CACHE_HOME"]).rglob("venvs"))
    assert status(own) is None


@pytest.mark.full
def test_it_is_updated_between_runs_and_ends_after_it_is_uninstalled(client: Path, own: Rig, tmp_path: Path) -> None:
    """B12."""
    go = tmp_path / "go"
    own.enable(shell_task("slow", f"until [ -e {go} ]; do sleep 0.1; done"))
    Command(own.project, own.env)("enable", "--yes", "--no-start")
    market = copy_plugin(tmp_path / "market")
    with StandIn() as api:
        env = {**client_environment(own.home, api), **own.env}
        plugin(client, env, "marketplace", "add", str(market))
        plugin(client, env, "install", NAME)
        for _ in range(2):  # the first sets it up, the second one's SessionStart starts the runner
            assert "1 of 1 task active" in ask(client, own, env, "/scheduler:status")
        first = wait_until(lambda: status(own))
        assert first["version"] == __version__
        run = own.run("slow")
        wait_until(lambda: own.ask("status")["running"])

        for name in (".claude-plugin/plugin.json", "scheduler/__init__.py"):
            text = (market / name).read_text()
            assert __version__ in text
            (market / name).write_text(text.replace(__version__, NEWER))
        plugin(client, env, "marketplace", "update", "claude-scheduler")
        assert NEWER in plugin(client, env, "update", NAME)
        with client_screen([str(client)], own.project, env) as screen:
            screen.wait_for(f"Updating the scheduler to {NEWER} in the background.")
            screen.leave()
        wait_until(lambda: own.ask("status")["stopping"])
        assert own.ask("status")["pid"] == first["pid"]  # it waits for the run
        go.touch()
        assert own.record(run)["status"] == "success"
        second = wait_until(lambda: (found := status(own)) and found["version"] == NEWER and found)
        assert second["pid"] != first["pid"]
        assert "Updating" not in start_line(client, own, env), own.log()

        plugin(client, env, "uninstall", NAME)
        wait_until(lambda: status(own) is None, 60, "for the runner's end")
        assert "the plugin was uninstalled" in own.log()
        # From a folder it goes on with the same state.
        assert re.search(r"✓ success", ask(client, own, env, "/scheduler:history", "--plugin-dir", str(ROOT)))


def ask(client: Path, own: Rig, env: dict[str, str], prompt: str, *words: str) -> str:
    """What `claude -p` answers."""
    argv = [str(client), *words, "-p", prompt]
    done = subprocess.run(argv, cwd=own.project, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    return done.stdout.decode()


def start_line(client: Path, own: Rig, env: dict[str, str]) -> str:
    """What a session shows at its start."""
    with client_screen([str(client)], own.project, env) as screen:
        screen.wait_for("Scheduler: on, 1 task active")
        screen.leave()
        return screen.text
