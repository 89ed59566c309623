from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from scheduler.core import health

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("2.1.330", "ok"),
        ("2.1.197 (Claude Code)", "ok"),
        ("3.0.0", "ok"),
        ("2.1.196", "warn"),
        ("1.9.999", "warn"),
        ("?", "warn"),
    ],
)
def test_the_client(text: str, level: str) -> None:
    assert health.client(text).level == level


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("git version 2.39.5 (Apple Git-154)", "ok"),
        ("git version 2.38.0", "ok"),
        ("git version 2.31.1", "warn"),
        ("git version 2.30.9", "fail"),
        ("git version 2.4.windows", "fail"),
        ("nonsense", "fail"),
    ],
)
def test_git(text: str, level: str) -> None:
    assert health.git(text).level == level


@pytest.mark.parametrize(
    ("now", "latest", "level"),
    [
        (NOW, None, "ok"),
        (NOW, NOW - timedelta(days=300), "ok"),
        (NOW, NOW + timedelta(minutes=9), "ok"),
        (NOW, NOW + timedelta(hours=2), "warn"),
        (datetime(1970, 1, 1, tzinfo=timezone.utc), None, "fail"),
        (health.BUILT - timedelta(seconds=1), NOW, "fail"),
    ],
)
def test_the_clock(now: datetime, latest: datetime | None, level: str) -> None:
    found = health.clock(now, latest, "a record")
    assert found.level == level and ("nothing starts" in found.text) == (level == "fail")


def test_a_clock_is_unset_before_the_threshold_alone() -> None:
    assert [health.is_unset(NOW + timedelta(seconds=by), NOW) for by in (-1, 0, 1)] == [True, False, False]


def test_zones() -> None:
    assert health.zone("Europe/Berlin", "", True).level == "ok"
    assert health.zone(None, "no name", True).level == "warn"
    assert health.zone("UTC", "", False).level == "fail"


@pytest.mark.parametrize(
    ("free", "files", "level"),
    [(10**12, 10**6, "ok"), (10**12, None, "ok"), (10**12, 5, "warn"), (10**8, 10**6, "warn"), (10**6, 10**6, "fail")],
)
def test_disks(free: int, files: int | None, level: str) -> None:
    assert health.disk("the state", "/x", free, files, 50_000_000).level == level


MOUNTINFO = r"""
23 29 0:21 / /proc rw,nosuid shared:13 - proc proc rw
29 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 29 0:35 / /home rw,relatime shared:20 - nfs4 server:/home rw,vers=4.2
41 40 254:3 / /home/me/local\040disk rw shared:21 master:3 - ext4 /dev/vdb rw
42 29 0:40 / /mnt rw - fuse.sshfs me@there: rw
"""
MOUNT = """
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
//me@nas/share on /Volumes/My Share (smbfs, nodev, nosuid)
"""


@pytest.mark.parametrize(
    ("text", "path", "level"),
    [
        (MOUNTINFO, "/srv/project", "ok"),
        (MOUNTINFO, "/home/me/project", "warn"),
        (MOUNTINFO, "/homework", "ok"),
        (MOUNTINFO, "/home/me/local disk/project", "ok"),
        (MOUNTINFO, "/mnt", "warn"),
        (MOUNT, "/Volumes/My Share/project", "warn"),
        (MOUNT, "/Users/me", "ok"),
        ("", "/Users/me", "ok"),
    ],
)
def test_file_systems(text: str, path: str, level: str) -> None:
    assert health.file_system("the project", path, health.mounts(text)).level == level


def test_who_holds_a_lock() -> None:
    text = (
        "1: POSIX  ADVISORY  READ  4242 08:01:131 0 EOF\n"
        "2: FLOCK  ADVISORY  WRITE 77 08:01:131 0 EOF\n"
        "2: -> FLOCK  ADVISORY  WRITE 78 08:01:131 0 EOF\n"
        "3: FLOCK  ADVISORY  WRITE 79 08:01:1310 0 EOF\n"
    )
    assert health.lock_holders(text, 131) == [77]


def record(run: str, status: str = "success", **fields: Any) -> dict[str, Any]:
    return {
        "id": run,
        "status": status,
        "startedAt": (NOW - timedelta(hours=1)).isoformat(),
        "completedAt": None if status == "running" else (NOW - timedelta(minutes=30)).isoformat(),
        "scheduledFor": (NOW - timedelta(hours=1)).isoformat(),
        **fields,
    }


LONG_AGO = NOW - timedelta(days=3)


@pytest.mark.parametrize(
    ("claims", "records", "live", "words"),
    [
        ({}, [], [], []),
        ({"a": LONG_AGO}, [record("a")], [], []),
        ({"a": LONG_AGO}, [], ["a"], []),
        ({"a": LONG_AGO}, [], [], ["1 run claimed and not on record: a"]),
        ({"a": NOW - timedelta(seconds=30)}, [], [], []),
        ({"a": LONG_AGO}, [record("a"), record("b")], [], ["1 run on record and never claimed: b"]),
        ({"a": LONG_AGO}, [record("a"), record("b", "skipped")], [], []),
        ({"a": LONG_AGO}, [record("a"), record("b", scheduledFor=None)], [], []),
        ({"a": LONG_AGO}, [record("a", "running")], [], ["1 run on record as running, which nobody runs: a"]),
        ({"a": LONG_AGO}, [record("a", "running")], ["a"], []),
        ({"a": LONG_AGO}, [record("a")], ["a"], ["1 run under way by the state and over by the history: a"]),
        ({"a": LONG_AGO}, [record("a", completedAt=NOW.isoformat())], ["a"], []),
        ({"a": LONG_AGO}, [record("a", startedAt="nonsense", completedAt=7, scheduledFor=8)], [], []),
    ],
)
def test_the_history_against_the_state(
    claims: dict[str, datetime], records: list[dict[str, Any]], live: list[str], words: list[str]
) -> None:
    found = list(health.compare(claims, records, live, NOW))
    assert [finding.text for finding in found] == words
    assert all(finding.level == "warn" and finding.mend for finding in found)
