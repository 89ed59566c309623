from __future__ import annotations

import asyncio
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import ClassVar

import pytest

from scheduler.core.models import ProjectSettings, UserSettings
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.runner import journal, upkeep
from scheduler.runner.upkeep import Upkeep
from scheduler.store import history, retention, segments
from tests import child
from tests.rig import rig, wait_until

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone.utc)
RUN = "0b6c1c9e-6d0f-4c3e-9a54-2f7f5d1f8a11"
LATE = NOW + timedelta(days=31)


@pytest.fixture
def where(tmp_path: Path) -> Paths:
    return Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path / "state")})


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = Path(paths.logs_folder(str(tmp_path)))
    (folder / "results").mkdir(parents=True)
    return folder


def touch(path: Path, *, size: int = 10, at: datetime = NOW) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    os.utime(path, (at.timestamp(),) * 2)
    return path


def told(tmp_path: Path, *, days: int = 30, running: tuple[str, ...] = (), now: datetime = LATE) -> dict[str, str]:
    found = retention.of_project(str(tmp_path), ProjectSettings.model_validate({"logDays": days}), running, now)
    return {os.path.basename(old.path): old.why for old in found}


OURS = ["a.log", "a.error.log", "a.log.1764000000000000000.4711", f"results/{RUN}.md", "file-changes.jsonl.17.4"]
OTHERS = ["notes.txt", "A.log", "-a.log", "a.log.bak", "a.log.gz", "b.error.log.old", "results/notes.md", ".gitignore",
          "a.error.txt", "execution-history.jsonl", "file-changes.jsonl", ".a.log.lock"]  # fmt: skip


def test_only_what_is_ours_by_its_name_is_told(tmp_path: Path, logs: Path) -> None:
    for name in (*OURS, *OTHERS):
        touch(logs / name)
    assert sorted(told(tmp_path)) == sorted(os.path.basename(name) for name in OURS)
    assert told(tmp_path)["a.log"] == "not written for 31 days"
    assert told(tmp_path, now=NOW + timedelta(days=29)) == {}
    assert told(tmp_path, days=60) == {}


def test_links_folders_and_strangers_files_are_left(tmp_path: Path, logs: Path) -> None:
    """J5: only a regular file of this user."""
    victim = touch(tmp_path / "victim")
    (logs / "link.log").symlink_to(victim)
    (logs / "folder.log").mkdir()
    os.mkfifo(logs / "fifo.log")
    if os.geteuid() == 0:
        os.chown(touch(logs / "stranger.log"), 65534, -1)
    assert told(tmp_path) == {}


def test_a_log_of_a_running_task_is_left(tmp_path: Path, logs: Path) -> None:
    """J8."""
    for name in ("a.log", "a.error.log", "a.log.1.2", "ab.log"):
        touch(logs / name)
    assert sorted(told(tmp_path, running=("a",))) == ["ab.log"]


def test_a_log_that_is_written_meanwhile_is_left(tmp_path: Path, logs: Path) -> None:
    touch(logs / "a.log")
    (old,) = retention.of_project(str(tmp_path), ProjectSettings(), (), LATE)
    files.append(logs / "a.log", b"new\n")
    retention.remove(old)
    assert (logs / "a.log").exists()
    touch(logs / "a.log")
    retention.remove(old)
    retention.remove(old)
    assert not (logs / "a.log").exists()


def test_of_too_many_logs_the_oldest_go(tmp_path: Path, logs: Path) -> None:
    """J8: never that of a running task."""
    size = retention.LOGS_LIMIT // 4
    for number in range(6):
        touch(logs / f"task-{number}.log", size=size, at=LATE + timedelta(hours=number))
    now = LATE + timedelta(hours=9)
    assert sorted(told(tmp_path, now=now)) == ["task-0.log", "task-1.log"]
    assert told(tmp_path, now=now)["task-0.log"] == "the logs of this project pass 256 MB"
    assert sorted(told(tmp_path, now=now, running=("task-0",))) == ["task-1.log"]


def test_the_logs_of_runner_and_hooks_have_their_days_too(where: Paths) -> None:
    files.make_folder(where.state)
    for name in ("runner.log", "runner.log.1.2", "hooks.log.1.2", "state.db", "events.jsonl.1.2"):
        touch(Path(where.state, name))
    assert [os.path.basename(old.path) for old in retention.of_user(where, 365, LATE)] == [
        "runner.log.1.2",
        "hooks.log.1.2",
    ]


def test_of_many_parts_of_our_own_logs_the_newest_stay(where: Paths) -> None:
    files.make_folder(where.state)
    for number in range(10, 19):
        touch(Path(where.state, f"hooks.log.{number}.1"), at=LATE)
    assert [os.path.basename(old.path) for old in retention.of_user(where, 365, LATE)] == [
        f"hooks.log.{number}.1" for number in range(10, 14)
    ]


def old_history(path: str, count: int = 6) -> None:
    for number in range(count + 1):
        at = (NOW + timedelta(days=31 * number)).isoformat(timespec="milliseconds")
        record = {"id": str(number), "taskId": "a", "project": "/p", "startedAt": at, "status": "success"}
        history.append_lines(path, history.to_line(record))
        if number < count:
            files.rotate(path, segments.next_name)


def tidy(where: Paths, project: Path, now: datetime) -> list[str]:
    settings = ProjectSettings.model_validate({"historyDays": 100})
    user = UserSettings.model_validate({"historyDays": 40})
    return list(upkeep.tidy(where, {str(project): settings}, user, {("/other", "a")}, now))


def test_upkeep_renames_compresses_and_removes(tmp_path: Path, where: Paths, logs: Path) -> None:
    own = paths.history_file(str(tmp_path))
    old_history(own)
    files.make_folder(where.logs)
    old_history(where.global_history)
    touch(logs / "a.log")
    assert tidy(where, tmp_path, NOW + timedelta(days=31 * 7 + 1)) == []
    assert [r["id"] for r in history.read(own)] == ["4", "5", "6"]
    assert [r["id"] for r in history.read(where.global_history)] == ["4", "5", "6"]
    assert not os.path.exists(own) and not (logs / "a.log").exists()
    assert [s.path.endswith(".gz") for s in segments.listed(own)] == [True, True, False]


def test_a_clock_that_jumps_ahead_is_followed_in_steps(tmp_path: Path, where: Paths, logs: Path) -> None:
    """J4: while it is wrong for less than a few weeks, nothing goes."""
    assert tidy(where, tmp_path, NOW) == []
    kept = [touch(logs / "a.log"), touch(logs / "results" / f"{RUN}.md"), touch(logs / "a.log.1.2")]
    for _ in range(3):
        assert tidy(where, tmp_path, NOW + timedelta(days=3660)) == []
        assert all(path.exists() for path in kept)
    assert tidy(where, tmp_path, NOW - timedelta(days=3660)) == []
    assert tidy(where, tmp_path, NOW) == []
    assert all(path.exists() for path in kept)
    for _ in range(5):
        assert tidy(where, tmp_path, NOW + timedelta(days=3660)) == []
    assert not any(path.exists() for path in kept)


def test_a_clock_that_jumps_leaves_the_newest_parts(tmp_path: Path, where: Paths) -> None:
    """J4."""
    own = paths.history_file(str(tmp_path))
    old_history(own)
    for years in (1, 20, 70):
        assert tidy(where, tmp_path, NOW + timedelta(days=366 * years)) == []
        assert [r["id"] for r in history.read(own)] == ["4", "5", "6"]
    assert tidy(where, tmp_path, NOW - timedelta(days=3660)) == []
    assert [r["id"] for r in history.read(own)] == ["4", "5", "6"]


AS_NOBODY = """
from datetime import datetime, timezone
from scheduler.core.models import ProjectSettings, UserSettings
from scheduler.disk.paths import Paths
from scheduler.runner import upkeep
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
where = Paths({"HOME": args[0], "SCHEDULER_HOME": args[0] + "/state"})
now = datetime.fromisoformat(args[2])
for line in upkeep.tidy(where, {args[1]: ProjectSettings()}, UserSettings(), (), now):
    print(line)
"""


def test_what_cannot_be_removed_is_told_and_the_rest_goes(
    tmp_path: Path, logs: Path, where: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J7: told once, the others go."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)  # nobody may write coverage's data
    os.makedirs(where.state)
    stuck = touch(logs / "results" / f"{RUN}.md")
    gone = touch(logs / "a.log")
    if os.geteuid() == 0:
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.chown(path, 65534, 65534)
        for folder in tmp_path.parents:
            if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o011)
    (logs / "results").chmod(0o500)
    said = child.output(child.start(AS_NOBODY, tmp_path, tmp_path, LATE.isoformat()))
    (logs / "results").chmod(0o700)
    assert said == f"cannot remove {stuck}: Permission denied\n"
    assert stuck.exists() and not gone.exists()


class _NoProjects:
    settings = UserSettings()
    served: ClassVar[dict[str, object]] = {}


def test_upkeep_is_done_at_once_and_then_once_a_day(where: Paths, caplog: pytest.LogCaptureFixture) -> None:
    files.make_folder(where.logs)
    os.makedirs(f"{where.global_history}")  # a folder where the history should be: a complaint each time

    async def days() -> list[int]:
        keeper = Upkeep(where, _NoProjects(), {}, lambda: None)  # type: ignore[arg-type]
        done = []
        for hours in (0, 1, 23, 24, 30, 48, 20):
            before = keeper._last
            keeper.look(NOW + timedelta(hours=hours), set)
            await keeper.close()
            done += [hours] if keeper._last is not before else []
        return done

    assert asyncio.run(days()) == [0, 24, 48, 20]
    assert len(caplog.messages) <= 1


def test_the_runners_log_is_renamed_when_it_is_full(tmp_path: Path) -> None:
    """Its standard error goes on in a new one."""
    with rig(tmp_path) as own:
        own.enable()
        full = touch(Path(own.paths.runner_log), size=journal.LIMIT + 1)
        own.start()
        (part,) = wait_until(lambda: files.rotated(full))
        assert os.path.getsize(part) > journal.LIMIT
        Path(own.paths.settings).write_text("{")
        os.chmod(own.paths.settings, 0o600)
        wait_until(lambda: "the settings stay as they were" in own.log())
        assert full.stat().st_size < 10_000


def test_the_runner_does_the_upkeep(tmp_path: Path) -> None:
    with rig(tmp_path) as own:
        own.enable()
        folder = Path(paths.logs_folder(str(own.project)))
        folder.mkdir(parents=True)
        old = touch(folder / "gone.log", at=datetime.now(timezone.utc) - timedelta(days=40))
        own.start()
        wait_until(lambda: not old.exists())
