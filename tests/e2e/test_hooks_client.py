"""The hooks in the real client: what a person sees at start and at exit, what the model hears, what is noted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler import __version__
from scheduler.disk import paths as places
from scheduler.execution.claude import client_version
from tests.client import API_KEY, client_environment
from tests.golden.record import NOTEBOOK
from tests.hooks import BASE, ROOT
from tests.rig import Rig, rig, shell_task, wait_until
from tests.standin import StandIn, text, tool
from tests.terminal import client_screen, trust

PLUGIN = ["--plugin-dir", str(ROOT)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        trust(made.home, made.project, API_KEY["ANTHROPIC_API_KEY"])
        runtime = Path(made.paths.runtime)
        runtime.parent.mkdir(parents=True)
        runtime.write_text(f"{BASE}\n{sys.executable}\n{ROOT / 'scheduler'}\n{__version__}\n")
        yield made


def environment(own: Rig, api: StandIn) -> dict[str, str]:
    return {**client_environment(own.home, api), **own.env}


def visit(client: Path, own: Rig, api: StandIn, *words: str, prompt: str = "") -> str:
    """One interactive session from start to end; what the terminal showed. `words` are waited for."""
    with client_screen([str(client), *PLUGIN], own.project, environment(own, api)) as screen:
        for wanted in words:
            screen.wait_for(wanted)
        if prompt:
            screen.send(prompt)
            screen.wait_for(prompt)
            screen.send("\r")
            screen.wait_for("the answer of the model")
        screen.leave()
        return screen.text + "\n" + screen.raw


def test_a_person_sees_what_is_on_what_ran_and_what_needs_them(client: Path, own: Rig) -> None:
    own.enable(shell_task("good", "echo x > new.txt"), shell_task("bad", "echo y > new.txt; exit 3"))
    own.start()
    for task in ("good", "bad"):
        own.run_to_end(task)
    wait_until(lambda: '"failed"' in Path(own.paths.glance).read_text(), what="for the glance")
    own.stop()
    failed = next(record["id"][:8] for record in own.records() if record["taskId"] == "bad")
    with StandIn() as api:
        api.play([text("the answer of the model")])
        shown = visit(
            client,
            own,
            api,
            "Scheduler: 2 tasks active",
            "its runner was not running and is being started.",
            "Lately: 1 run ok (good), 1 failed (bad)",
            f"Failed: bad {failed}.",
            f"/scheduler:adopt {failed}",
            "To review: 1 branch",
            prompt="hello",
        )
        assert "\x1b]9;Scheduler" not in shown
        said = next(request.said for request in api.turns if "hello" in request.prompt)
        assert "[claude-scheduler] This project has 2 active scheduled tasks." in said
        assert "Failed since the last session: bad." in said
        assert "its runner was not running" not in said
        # The runner outlives the client that started it.
        assert own.ask("status")["pid"]
        again = visit(client, own, api, "Scheduler: on, 2 tasks active", f"Failed: bad {failed}.")
        assert "1 run ok" not in again


def test_a_person_is_reminded_of_tasks_that_nobody_runs(client: Path, own: Rig) -> None:
    config = Path(places.config_file(str(own.project)))
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"version": 1, "tasks": [shell_task("nightly", "true")]}))
    offer = "Scheduler: 1 task here is not enabled. /scheduler:enable shows what would run and turns it on."
    said = "Scheduler: 1 task of project not enabled, so nothing runs. In Claude Code: /scheduler:enable"
    with StandIn() as api:
        shown = visit(client, own, api, offer)
        # 2.1.330 leaves the full screen without writing what SessionEnd asks it to.
        assert (f"\x1b]9;{said}\x07" in shown) == (client_version(client, environment(own, api)) == "2.1.197")
        assert f"\r\n{said}\r\n" in shown.replace("\r\r", "\r")  # the line, once the client is gone
        assert said not in visit(client, own, api, offer)  # once a day
        own.enable(shell_task("nightly", "true"))
        own.start()
        wait_until(lambda: Path(own.paths.glance).exists() and str(own.project) in Path(own.paths.glance).read_text())
        visit(client, own, api, "Scheduler: on, 1 task active", "1 task had nobody to run it.")


def test_what_the_tools_change_is_noted_and_without_a_terminal_nothing_is_said(client: Path, own: Rig) -> None:
    config = Path(places.config_file(str(own.project)))
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"version": 1, "tasks": [shell_task("nightly", "true")]}))
    work = own.project / "a folder"
    work.mkdir()
    (work / "old.txt").write_bytes(b"one\r\ntwo\r\n")
    (work / "book.ipynb").write_text(json.dumps(NOTEBOOK))
    with StandIn() as api:
        api.play(
            [
                tool("Write", file_path=str(work / "new.txt"), content="hello\n"),
                tool("Read", file_path=str(work / "old.txt")),
                tool("Edit", file_path=str(work / "old.txt"), old_string="one", new_string="1\nand more"),
                tool("Read", file_path=str(work / "book.ipynb")),
                tool("NotebookEdit", notebook_path=str(work / "book.ipynb"), cell_id="c1", new_source="print(2)"),
                tool("Agent", description="write", prompt="SUBAGENT: write it", subagent_type="general-purpose"),
                text("Done."),
            ]
        )
        written = tool("Write", file_path=str(work / "sub.txt"), content="s\n")
        api.play([written, text("sub done")], when="SUBAGENT")
        done = subprocess.run(
            [str(client), "-p", *PLUGIN, "--permission-mode", "acceptEdits"],
            input=b"do the work",
            cwd=work,
            env=environment(own, api),
            capture_output=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, b"Done.", b"")
    lines = [json.loads(line) for line in Path(places.file_changes(str(own.project))).read_text().splitlines()]
    assert sorted((x["tool"], x["path"], x["kind"], x["linesAdded"], x["linesRemoved"]) for x in lines) == [
        ("Edit", "a folder/old.txt", "update", 2, 1),
        ("NotebookEdit", "a folder/book.ipynb", "update", 19, 1),
        ("Write", "a folder/new.txt", "create", 1, 0),
        ("Write", "a folder/sub.txt", "create", 1, 0),
    ]
    for line in lines:
        file = own.project / line["path"]
        assert line["bytesAfter"] == os.path.getsize(file)
        assert "hello" not in json.dumps(line)
    edit = next(line for line in lines if line["tool"] == "Edit")
    assert (edit["bytesBefore"], edit["bytesAfter"]) == (10, 18)
    assert len({line["toolUseId"] for line in lines}) == 4
    assert not (Path(own.paths.state) / "seen").exists()
    assert not Path(own.paths.hooks_log).exists()
