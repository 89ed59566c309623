"""The slash commands as a user types them into the real client, with the plugin from a folder and installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.client import client_environment
from tests.rig import Rig, rig, shell_task
from tests.standin import StandIn, text

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120


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


def ask(client: Path, own: Rig, api: StandIn, cache: Path, *words: str) -> dict[str, Any]:
    """What `claude -p` gives as its result."""
    env = {**client_environment(own.home, api), **own.env, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [str(client), *words, "--output-format", "json"],
        cwd=own.project,
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


def test_it_installs_from_a_git_repository(client: Path, own: Rig, cache: Path, tmp_path: Path) -> None:
    source, marketplace = tmp_path / "source", tmp_path / "marketplace"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, os.fsdecode(files).split("\0")):
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
            target.chmod((ROOT / name).stat().st_mode)
    own.git("init", "-q", str(source), cwd=tmp_path)
    own.git("add", "-A", cwd=source)
    own.git("-c", "user.name=T", "-c", "user.email=t@x", "commit", "-q", "-m", "plugin", cwd=source)
    (marketplace / ".claude-plugin").mkdir(parents=True)
    entry = {"name": "scheduler", "source": {"source": "url", "url": f"file://{source}"}}
    listed = {"name": "by-git", "owner": {"name": "T"}, "plugins": [entry]}
    (marketplace / ".claude-plugin" / "marketplace.json").write_text(json.dumps(listed))
    own.enable(shell_task("nightly", "true"))
    with StandIn() as api:
        env = {**client_environment(own.home, api), **own.env, "XDG_CACHE_HOME": str(cache)}
        plugin(client, env, "marketplace", "add", str(marketplace))
        plugin(client, env, "install", "scheduler@by-git")
        result = ask(client, own, api, cache, "-p", "/scheduler:list")
        assert re.search(r"nightly +nightly +on", result["result"]), result


def plugin(client: Path, env: Mapping[str, str], *words: str) -> str:
    """`claude plugin …`, which must succeed; what it says."""
    done = subprocess.run([str(client), "plugin", *words], env=dict(env), capture_output=True, timeout=SECONDS)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
