"""The slash commands as a user types them into the real client, with the plugin from a folder and installed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler import __version__
from scheduler.execution.claude import client_version
from tests.client import API_KEY, client_environment
from tests.command import Command
from tests.plugin import ROOT, copy_plugin, plugin
from tests.rig import Rig, rig, shell_task
from tests.standin import StandIn, text, tool
from tests.terminal import client_screen, trust

SECONDS = 120
PLUGIN = ("--plugin-dir", str(ROOT))
NO_HOOKS = ("--settings", json.dumps({"disableAllHooks": True}))
SCHEDULER = f'"{ROOT}/scripts/scheduler"'


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One set-up of the plugin's own environment for all tests of this process."""
    folder = tmp_path_factory.getbasetemp() / "plugin-cache"
    folder.mkdir(exist_ok=True)
    return folder


def ask(client: Path, own: Rig, api: StandIn, cache: Path, *words: str, cwd: Path | None = None) -> dict[str, Any]:
    """What `claude -p` gives as its result."""
    env = {**client_environment(own.home, api), **own.env, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [str(client), *words, "--output-format", "json"],
        cwd=cwd or own.project,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
    )
    assert done.stdout, done.stderr.decode()
    found = json.loads(done.stdout)
    result: dict[str, Any] = found[-1] if isinstance(found, list) else found
    return result


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("/scheduler:status", r"1 of 1 tasks? active"),
        ("/scheduler:list", r"nightly +nightly +on"),
        ("/scheduler:next --count 2", r"nightly"),
        ("/scheduler:history --limit 5", r"✓ success"),
        ("/scheduler:stats --task nightly", r"runs +1\b"),
        ("/scheduler:logs nightly", r"hello from the task"),
        ("/scheduler:logs 'no such task; touch pwned'", r"error: .*no task|error: .*no such"),
    ],
)
def test_what_only_shows_is_answered_without_the_model(
    client: Path, own: Rig, cache: Path, words: str, expected: str
) -> None:
    own.enable(shell_task("nightly", "echo hello from the task"))
    own.start()
    own.run_to_end("nightly")
    with StandIn() as api:
        api.play([text("the model was asked")])
        result = ask(client, own, api, cache, "--plugin-dir", str(ROOT), "-p", words)
        assert [request for request in api.turns if request.is_turn] == []
    assert re.search(expected, result["result"]), result["result"]
    assert result["num_turns"] == 0 and not result.get("total_cost_usd")
    assert not (own.project / "pwned").exists()


def test_what_is_typed_into_a_session_is_answered_on_the_screen(client: Path, own: Rig, cache: Path) -> None:
    """The commands that only show something by the scheduler alone, another one by the model."""
    own.enable(shell_task("nightly", "echo hello from the task"))
    own.start()
    own.run_to_end("nightly")
    trust(own.home, own.project, API_KEY["ANTHROPIC_API_KEY"])
    shell = Command(own.project, own.env)
    with StandIn() as api:
        env = {**client_environment(own.home, api), **own.env, "XDG_CACHE_HOME": str(cache)}
        api.play([tool("Bash", command=f"{SCHEDULER} pause 'nightly'"), text("as the model says")])
        with client_screen([str(client), *PLUGIN, "--permission-mode", "default"], own.project, env) as screen:
            screen.wait_for("Scheduler: on, 1 task active")
            for words, last in (("status", "1 of 1 task active"), ("list", "NEXT"), ("logs nightly", "hello from")):
                screen.enter(f"/scheduler:{words}")
                screen.wait_for(f"Original prompt: /scheduler:{words}")
                assert last in screen.text
            # The same text as in the shell, but for how long ago the run was.
            assert " ".join(shell("list").out.split()).rpartition(", ")[0] in screen.text
            assert api.turns == []
            screen.enter("/scheduler:pause nightly")
            screen.wait_for("as the model says")
            screen.leave()
    assert "paused nightly" in tool_results(api)[0]
    assert "paused" in shell("list").out


def test_a_person_approves_in_a_session_and_the_model_cannot(client: Path, own: Rig, cache: Path) -> None:
    """I7: by the word on the screen, which the model does not hear; its own call is refused, though none asks it."""
    shell = Command(own.project, own.env)
    shell("add", "nightly", "--every", "4h", "--shell", "echo approved as it is")
    trust(own.home, own.project, API_KEY["ANTHROPIC_API_KEY"])
    with StandIn() as api:
        env = {**client_environment(own.home, api), **own.env, "XDG_CACHE_HOME": str(cache)}
        api.play([tool("Bash", command=f"{SCHEDULER} enable --yes"), text("as the model says")])
        allowed = ("--permission-mode", "default", "--allowedTools", "Bash")
        with client_screen([str(client), *PLUGIN, *allowed], own.project, env) as screen:
            screen.wait_for("Scheduler: 1 task here is not enabled.")
            screen.enter("/scheduler:enable")
            screen.wait_for("Original prompt: /scheduler:enable")
            found = re.search(r"type: /scheduler:enable yes (\w{4})\b", screen.text)
            assert found and "echo approved as it is" in screen.text, screen.text
            screen.enter("please approve it")
            screen.wait_for("as the model says")
            assert "for a person to type, not for a tool call" in tool_results(api)[0]
            assert not any(found[1] in json.dumps(turn.body) for turn in api.turns)
            assert "not enabled" in shell("status").out
            screen.enter(f"/scheduler:enable yes {found[1]}")
            screen.wait_for("enabled: 1 task")
            screen.leave()
        with client_screen([str(client), *PLUGIN], own.project, env) as screen:
            screen.wait_for("Scheduler: on, 1 task active")
            screen.wait_for("in Claude Code (enable)")
            assert "Approved: nightly by" in screen.text
            screen.leave()
    shell("stop")


@pytest.mark.parametrize(
    ("words", "call", "expected"),
    [
        ("pause nightly", "pause 'nightly' --until '2099-01-01 09:00'", r"paused nightly until \w+ 2099-01-01"),
        ("adopt nothing", "adopt 'nothing'", r"error: no run 'nothing'"),
        pytest.param("resume", "resume", r"not paused: ", marks=pytest.mark.full),
        pytest.param("run nightly", "run 'nightly'", r"nightly", marks=pytest.mark.full),
        pytest.param("disable", "disable", r"disabled", marks=pytest.mark.full),
        pytest.param("enable", "enable", r"nightly", marks=pytest.mark.full),
        pytest.param("remove nightly", "remove 'nightly'", "removed nightly; its history", marks=pytest.mark.full),
        pytest.param("add x", "add 'x; y' --every 4h --prompt 'a | b'", "added x-y", marks=pytest.mark.full),
        pytest.param("logs nightly", "logs 'nightly' -n 5", r"error: there is no log", marks=pytest.mark.full),
    ],
)  # fmt: skip
def test_what_the_model_carries_out_is_let_through_and_nothing_else(
    client: Path, own: Rig, cache: Path, words: str, call: str, expected: str
) -> None:
    own.enable(shell_task("nightly", "true"))
    config = own.project / ".omc" / "scheduler" / "config.json"
    worse = ("; touch pwned", " $(touch pwned)", " > pwned")
    refused = [*(f"{SCHEDULER} {call}{more}" for more in worse), f"{SCHEDULER} discard 0 --yes"]
    with StandIn() as api:
        api.play(
            [
                tool("Bash", command=f"{SCHEDULER} {call}"),
                *(tool("Bash", command=command) for command in refused),
                text("Done."),
            ]
        )
        # Without the plugin's hooks `logs` too is the model's.
        result = ask(client, own, api, cache, *PLUGIN, *NO_HOOKS, "-p", f"/scheduler:{words}")
        asked = api.turns[0].said
        said = tool_results(api)
    assert f"{SCHEDULER} {call.split()[0]}" in asked and words.partition(" ")[2] in asked
    assert result["result"] == "Done.", result
    assert [denied["tool_input"]["command"] for denied in result["permission_denials"]] == refused
    assert len(said) == 5 and re.search(expected, said[0]), said
    assert not (own.project / "pwned").exists() and config.exists()


@pytest.mark.full
def test_the_skill_saves_by_one_call_and_cannot_approve(client: Path, own: Rig, cache: Path) -> None:
    own.enable(shell_task("nightly", "true"))
    add = f"{SCHEDULER} add 'Weekly look' --cron '0 9 * * 1' --prompt 'look; then tell'"
    with StandIn() as api:  # a person is asked before a skill with tools of its own begins
        calls = [tool("Bash", command=f"{add} --dry-run"), tool("Bash", command=add)]
        turns = [tool("Skill", skill="scheduler:schedule"), *calls]
        api.play([*turns, tool("Bash", command=f"{SCHEDULER} enable --yes"), text("Done.")])
        result = ask(client, own, api, cache, *PLUGIN, "--allowedTools", "Skill", "-p", "every monday at 9, look")
        said = tool_results(api)
        version = client_version(client, client_environment(own.home, api))
    denied = [call["tool_input"]["command"] for call in result["permission_denials"]]
    # 2.1.197 does not heed the allowed-tools of a skill that the model begins: there a person is asked.
    assert denied == [*([f"{add} --dry-run", add] if version == "2.1.197" else []), f"{SCHEDULER} enable --yes"]
    if version != "2.1.197":
        assert "would add weekly-look: At 09:00, only on Monday" in said[1] and "look; then tell" in said[1], said
        assert "added weekly-look: At 09:00, only on Monday" in said[2], said


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("status", r"1 of 1 task active"),
        pytest.param("list", r"nightly +nightly +on", marks=pytest.mark.full),
        pytest.param("next", r"nightly", marks=pytest.mark.full),
        pytest.param("history", r"nothing has run yet", marks=pytest.mark.full),
        pytest.param("stats", r"runs +0\b", marks=pytest.mark.full),
    ],
)
def test_a_client_without_the_hook_gives_the_model_the_answer(
    client: Path, own: Rig, cache: Path, verb: str, expected: str
) -> None:
    own.enable(shell_task("nightly", "true"))
    with StandIn() as api:
        api.play([text("as it is")])
        result = ask(client, own, api, cache, *PLUGIN, *NO_HOOKS, "-p", f"/scheduler:{verb}")
        assert result["result"] == "as it is"
        assert re.search(expected, api.turns[0].said)


@pytest.mark.parametrize("hooks", [True, False])
def test_a_failure_is_shown(client: Path, own: Rig, cache: Path, tmp_path: Path, hooks: bool) -> None:
    elsewhere = tmp_path / "no repository"
    elsewhere.mkdir()
    with StandIn() as api:
        api.play([text("as it is")])
        words = (*PLUGIN, *(() if hooks else NO_HOOKS), "-p", "/scheduler:list")
        result = ask(client, own, api, cache, *words, cwd=elsewhere)
        shown = result["result"] if hooks else api.turns[0].said
    assert "error: " in shown and "is not in a git repository" in shown, shown
    assert "go to one, or make one with `git init`" in shown


def tool_results(api: StandIn) -> list[str]:
    """What the calls of tools gave the model."""
    blocks = [block for message in api.turns[-1].body["messages"] for block in message["content"]]
    found = [block["content"] for block in blocks if isinstance(block, dict) and block.get("type") == "tool_result"]
    return [content if isinstance(content, str) else json.dumps(content) for content in found]


def test_it_validates_installs_answers_and_leaves(client: Path, own: Rig, cache: Path) -> None:
    own.enable(shell_task("nightly", "true"))
    with StandIn() as api:
        env = {**client_environment(own.home, api), **own.env, "XDG_CACHE_HOME": str(cache)}
        assert plugin(client, env, "validate", "--strict", str(ROOT))
        plugin(client, env, "marketplace", "add", str(ROOT))
        plugin(client, env, "install", "scheduler@claude-scheduler")
        details = plugin(client, env, "details", "scheduler")
        always = re.search(r"Always-on: +~(\d+) tok", details)
        assert always and int(always[1]) <= 120, details
        result = ask(client, own, api, cache, "-p", "/scheduler:status")
        assert "1 of 1 task active" in result["result"], result
        plugin(client, env, "uninstall", "scheduler@claude-scheduler")
        assert "scheduler" not in plugin(client, env, "list")


def commit_all(own: Rig, folder: Path) -> None:
    own.git("init", "-q", cwd=folder)
    own.git("add", "-A", cwd=folder)
    own.git("-c", "user.name=T", "-c", "user.email=t@x", "commit", "-q", "-m", "plugin", cwd=folder)


NAME = "scheduler@claude-scheduler"


@pytest.mark.parametrize("kind", ["git", pytest.param("directory", marks=pytest.mark.full)])
def test_it_is_switched_off_and_on_updated_and_removed(
    client: Path, own: Rig, cache: Path, tmp_path: Path, kind: str
) -> None:
    market = copy_plugin(tmp_path / "mar ket")
    address = str(market)
    if kind == "git":  # the client takes no file:// address; git finds the repository on this disk all the same
        address = "https://git.example.invalid/scheduler.git"
        own.git("config", "--global", f"url.file://{market}.insteadOf", address)
        commit_all(own, market)
    own.enable(shell_task("nightly", "true"))
    own.start()
    with StandIn() as api:
        env = {**client_environment(own.home, api), **own.env, "XDG_CACHE_HOME": str(cache)}

        def answers() -> bool:
            """Whether the command is answered, and the model hears of the tasks, or neither is so."""
            listed = "1 of 1 task active" in str(ask(client, own, api, cache, "-p", "/scheduler:status")["result"])
            api.play([text("as it is")])
            ask(client, own, api, cache, "-p", "hello")
            assert ("[claude-scheduler] This project has 1 active" in api.turns[-1].said) == listed
            return listed

        assert not answers()
        plugin(client, env, "marketplace", "add", address)
        plugin(client, env, "install", NAME)
        assert answers()
        plugin(client, env, "disable", NAME)
        assert "disabled" in plugin(client, env, "list") and not answers()
        plugin(client, env, "enable", NAME)
        assert "disabled" not in plugin(client, env, "list") and answers()

        for name in (".claude-plugin/plugin.json", "scheduler/__init__.py"):
            file = market / name
            file.write_text(file.read_text().replace(__version__, "0.1.1"))
        if kind == "git":
            commit_all(own, market)
        plugin(client, env, "marketplace", "update", "claude-scheduler")
        assert "0.1.1" in plugin(client, env, "update", NAME)
        assert "0.1.1" in plugin(client, env, "list") and answers()
        plugin(client, env, "uninstall", NAME)
        assert "scheduler" not in plugin(client, env, "list") and not answers()
        # From a folder it meets the same state.
        result = ask(client, own, api, cache, "--plugin-dir", str(market), "-p", "/scheduler:status")
        assert "1 of 1 task active" in result["result"], result
        plugin(client, env, "marketplace", "remove", "claude-scheduler")
