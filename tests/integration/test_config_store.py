from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.parse import ConfigUnreadable
from scheduler.disk import glance, paths
from scheduler.errors import SchedulerError
from scheduler.store import config
from scheduler.store.config import ConfigAbsent, Source
from tests import child

ENTRY: dict[str, Any] = {
    "id": "a",
    "name": "A",
    "trigger": {"type": "interval", "every": 60},
    "execution": {"type": "shell", "command": "true"},
}


@pytest.fixture
def project(tmp_path: Path) -> str:
    root = tmp_path / "project"
    (root / paths.CONFIG_FOLDER).mkdir(parents=True)
    return str(root)


def put(project: str, data: bytes | str) -> Path:
    path = Path(paths.config_file(project))
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def tasks(*entries: dict[str, Any]) -> str:
    return json.dumps({"version": 1, "tasks": list(entries)})


def test_absent_is_not_corrupt(project: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigAbsent):
        config.read_source(project)
    with pytest.raises(ConfigAbsent):
        config.read_source(str(tmp_path / "nowhere"))
    assert os.listdir(Path(project, paths.CONFIG_FOLDER)) == []


def test_a_file_that_is_no_json_is_named_and_left(project: str) -> None:
    """D1."""
    path = put(project, b'{"tasks":[')
    source = config.read_source(project)
    with pytest.raises(ConfigUnreadable, match=f"{path} is not JSON: line 1 column 11"):
        source.parse()
    with pytest.raises(ConfigUnreadable):
        config.edited(source, project, lambda entries: entries.append(ENTRY))
    assert path.read_bytes() == b'{"tasks":['


def test_a_file_past_the_limit_is_not_read(project: str) -> None:
    """D4."""
    path = put(project, b"")
    os.truncate(path, config.CONFIG_LIMIT + 1)
    with pytest.raises(ConfigUnreadable, match="larger than"):
        config.read_source(project)


def test_what_is_no_regular_file_is_not_read(project: str) -> None:
    """D6."""
    path = Path(paths.config_file(project))
    os.mkfifo(path)
    with pytest.raises(ConfigUnreadable, match="not a regular file"):
        config.read_source(project)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigUnreadable):
        config.read_source(project)
    path.rmdir()
    path.symlink_to("/dev/zero")
    with pytest.raises(ConfigUnreadable):
        config.read_source(project)


@pytest.mark.parametrize(
    ("place", "mode", "says"),
    [("config.json", 0o666, "mode 666"), (".", 0o777, "mode 777"), ("rules.md", 0o602, "mode 602")],
)
def test_a_file_that_others_can_write_is_refused(project: str, place: str, mode: int, says: str) -> None:
    """D7."""
    put(project, tasks())
    Path(paths.rules_file(project)).write_text("Be kind.")
    Path(project, paths.CONFIG_FOLDER, place).chmod(mode)
    with pytest.raises(ConfigUnreadable) as caught:
        config.read_source(project)
    assert says in caught.value.message and caught.value.hint.startswith("run: chmod go-w ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_owner_is_refused(project: str) -> None:
    """D7."""
    os.chown(put(project, tasks()), 65534, 65534)
    with pytest.raises(ConfigUnreadable, match="another user"):
        config.read_source(project)


def test_the_digest_covers_place_config_and_rules(project: str) -> None:
    put(project, tasks())
    one = config.read_source(project)
    variants = [
        one,
        Source(project + "2", one.config, None),
        Source(project, one.config + b" ", None),
        Source(project, one.config, b""),
        Source(project, one.config, b"-"),
        Source(project, one.config[:-1], one.config[-1:]),
    ]
    assert len({variant.digest for variant in variants}) == len(variants)
    assert config.read_source(project).digest == one.digest


def test_an_edit_keeps_what_is_unknown(project: str) -> None:
    """B13, D3."""
    put(project, json.dumps({"later": {"x": 1}, "version": 1, "tasks": [{**ENTRY, "colour": "blue"}]}))
    source = config.read_source(project)
    after = config.edited(source, project, lambda entries: entries.append({**ENTRY, "id": "b"}))
    raw = json.loads(after.config)
    assert list(raw) == ["later", "version", "tasks"]
    assert raw["later"] == {"x": 1} and raw["tasks"][0]["colour"] == "blue"
    assert [task.id for task in after.parse().tasks] == ["b"]


def test_an_edit_of_nothing_makes_a_config(project: str) -> None:
    after = config.edited(None, project, lambda entries: entries.append(ENTRY))
    config.write(after, None)
    assert [task.id for task in config.read_source(project).parse().tasks] == ["a"]
    assert stat.S_IMODE(os.stat(paths.config_file(project)).st_mode) == 0o644


def test_text_survives_an_edit(project: str) -> None:
    entry = {**ENTRY, "name": "Grüße \u2028 \U0001f600"}
    put(
        project, b"\xef\xbb\xbf" + json.dumps({"version": 1, "tasks": [entry]}, indent=1).replace("\n", "\r\n").encode()
    )
    after = config.edited(config.read_source(project), project, lambda entries: None)
    assert "Grüße".encode() in after.config
    assert json.loads(after.config)["tasks"] == [entry]


def test_half_a_surrogate_pair_survives_an_edit(project: str) -> None:
    entry = {**ENTRY, "note": "\ud800"}
    put(project, tasks(entry))
    after = config.edited(config.read_source(project), project, lambda entries: None)
    assert json.loads(after.config)["tasks"] == [entry]
    assert [problem.place for problem in after.parse().problems] == ["tasks[0]"]


def test_a_config_does_not_grow_past_its_limit(project: str) -> None:
    put(project, tasks())
    with pytest.raises(SchedulerError, match="16 MB"):
        config.edited(config.read_source(project), project, lambda entries: entries.append("x" * config.CONFIG_LIMIT))


def test_a_file_that_changed_meanwhile_is_not_overwritten(project: str) -> None:
    """D12."""
    path = put(project, tasks())
    before = config.read_source(project)
    after = config.edited(before, project, lambda entries: entries.append(ENTRY))
    path.write_text(tasks(ENTRY) + "\n")
    with pytest.raises(SchedulerError, match="changed while it was edited"):
        config.write(after, before)
    assert path.read_text() == tasks(ENTRY) + "\n"
    path.unlink()
    with pytest.raises(SchedulerError, match="changed while it was edited"):
        config.write(after, before)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_rewrite_keeps_the_mode(project: str, mode: int) -> None:
    """D14."""
    path = put(project, tasks())
    path.chmod(mode)
    before = config.read_source(project)
    config.write(config.edited(before, project, lambda entries: entries.append(ENTRY)), before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_rewrite_goes_through_a_link_to_its_target(project: str, tmp_path: Path) -> None:
    """D6."""
    target = tmp_path / "dotfiles.json"
    target.write_text(tasks())
    link = Path(paths.config_file(project))
    link.symlink_to(target)
    before = config.read_source(project)
    config.write(config.edited(before, project, lambda entries: entries.append(ENTRY)), before)
    assert link.is_symlink() and json.loads(target.read_text())["tasks"] == [ENTRY]


EDIT = """
import json
from scheduler.disk.paths import Paths
from scheduler.store import config, trust
where, project, name = Paths({"HOME": args[0], "SCHEDULER_HOME": args[0]}), args[1], args[2]
for number in range(int(args[3])):
    with trust.lock(where):
        before = config.read_source(project)
        task = {"id": f"{name}-{number}", "name": "A", "trigger": {"type": "interval", "every": 60},
                "execution": {"type": "shell", "command": "true"}}
        config.write(config.edited(before, project, lambda entries: entries.append(task)), before)
"""


def test_tools_that_edit_at_once_lose_nothing(project: str, tmp_path: Path) -> None:
    """D12."""
    put(project, tasks())
    editors = [child.start(EDIT, tmp_path / "home", project, name, 20) for name in "abcd"]
    for editor in editors:
        child.output(editor)
    found = {task.id for task in config.read_source(project).parse().tasks}
    assert found == {f"{name}-{number}" for name in "abcd" for number in range(20)}


def test_the_stamp_changes_with_config_and_rules(project: str) -> None:
    seen = [glance.stamp(project)]
    path = put(project, tasks())
    seen.append(glance.stamp(project))
    path.chmod(0o600)
    seen.append(glance.stamp(project))
    Path(paths.rules_file(project)).write_text("x")
    seen.append(glance.stamp(project))
    assert len(set(map(tuple, seen))) == 4
    assert glance.stamp(project) == seen[-1]


def test_logs_are_hidden_from_git(repo: Path, git: Any) -> None:
    config.prepare_logs(str(repo))
    Path(paths.history_file(str(repo))).write_text("{}\n")
    assert git("status", "--porcelain", cwd=repo) == ""
    git("clean", "-fd", cwd=repo)
    assert Path(paths.history_file(str(repo))).exists()
