from __future__ import annotations

import json
from pathlib import Path

import pytest

from scheduler.runner.installation import was_uninstalled

PLACES = [{"scope": "user", "installPath": "/x", "version": "0.1.0"}]


def environment(folder: Path, listed: object) -> dict[str, str]:
    (folder / "installed_plugins.json").write_text(listed if isinstance(listed, str) else json.dumps(listed))
    return {"SCHEDULER_STARTED_BY": "plugin", "SCHEDULER_PLUGIN_DATA": str(folder / "data" / "scheduler-my-market")}


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ({"version": 2, "plugins": {"scheduler@my.market": PLACES}}, False),
        ({"version": 2, "plugins": {"scheduler@other": PLACES}}, True),
        ({"version": 2, "plugins": {"scheduler@my.market": []}}, True),
        ({"version": 2, "plugins": {}}, True),
        ({"version": 3}, False),
        ("{", False),
        ([], False),
    ],
)
def test_only_a_list_without_the_plugin_proves_its_removal(tmp_path: Path, listed: object, expected: bool) -> None:
    assert was_uninstalled(environment(tmp_path, listed)) is expected


def test_a_runner_that_no_plugin_started_stays(tmp_path: Path) -> None:
    env = environment(tmp_path, {"version": 2, "plugins": {}})
    assert not was_uninstalled({**env, "SCHEDULER_STARTED_BY": "shell"})
    assert not was_uninstalled({"SCHEDULER_STARTED_BY": "plugin"})
    assert not was_uninstalled({**env, "SCHEDULER_PLUGIN_DATA": str(tmp_path / "gone" / "data" / "x")})
