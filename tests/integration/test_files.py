from __future__ import annotations

import os
import random
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scheduler.disk import files, rights
from tests import boxes, child

LINE = 4099  # no divisor of a page: only then does a kill tear lines where the disk works in pages

APPEND = """
from scheduler.disk import files
path, name, count, size = args[0], args[1], int(args[2]), int(args[3])
for number in range(count):
    line = f"{name}:{number}:".encode()
    files.append(path, line + b"x" * (size - len(line) - 1) + b"\\n")
"""

REPLACE = """
from scheduler.disk import files
import itertools
for number in itertools.count():
    files.write_atomic(args[0], str(number % 10).encode() * 20000)
"""

FULL = """
import resource, signal
from scheduler.disk import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    getattr(files, args[0])(args[1], b"n" * 4000 + b"\\n")
except OSError as error:
    print(error.strerror)
"""


def test_many_writers_lose_and_mix_no_line(tmp_path: Path) -> None:
    """A1."""
    log = tmp_path / "log"
    sizes = (200, LINE, 65537, 300)
    children = [child.start(APPEND, log, n, 60, size, site=False) for n, size in enumerate(sizes)]
    for one in children:
        child.output(one)
    lines = log.read_bytes().split(b"\n")
    assert lines.pop() == b""
    found = sorted(tuple(map(int, line.split(b":")[:2])) for line in lines)
    assert found == [(n, number) for n in range(len(sizes)) for number in range(60)]
    assert {(int(line[:1]), len(line) + 1) for line in lines} == set(enumerate(sizes))


@pytest.mark.parametrize("size", [LINE, 65539])
def test_a_writer_killed_in_mid_line_costs_that_line_alone(tmp_path: Path, size: int) -> None:
    """A2, with sizes that divide no page."""
    log = tmp_path / "log"
    log.touch()
    pause = random.Random(size)
    kills = 12
    for number in range(kills):
        before = log.stat().st_size
        writer = child.start(APPEND, log, number, 10_000_000 // size, size, site=False)
        while log.stat().st_size == before:
            assert writer.poll() is None
            time.sleep(0.0005)
        time.sleep(pause.uniform(0, 0.005))
        writer.kill()
        writer.communicate()
    files.append(log, b"end\n")
    lines = log.read_bytes().split(b"\n")
    assert lines[-2:] == [b"end", b""]
    torn = [line for line in lines[:-2] if len(line) != size - 1]
    assert len(torn) <= kills
    whole = [tuple(map(int, line.split(b":")[:2])) for line in lines[:-2] if len(line) == size - 1]
    for number in range(kills):
        mine = [count for name, count in whole if name == number]
        assert mine == list(range(len(mine)))


def test_a_torn_line_is_closed_before_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"whole\nto")
    files.append(log, b"next\n")
    assert log.read_bytes() == b"whole\nto\nnext\n"


def test_an_append_to_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """A4, A5."""
    log = tmp_path / "log"
    before = b"a" * 899 + b"\n"
    log.write_bytes(before)
    assert child.output(child.start(FULL, "append", log, site=False)) == "No space left on device\n"
    assert log.read_bytes() == before


def test_a_write_to_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """D13."""
    path = tmp_path / "config.json"
    path.write_bytes(b"old")
    assert child.output(child.start(FULL, "write_atomic", path, site=False)) == "File too large\n"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_killed_write_leaves_the_old_or_the_new_whole(tmp_path: Path) -> None:
    """D11."""
    path = tmp_path / "config.json"
    pause = random.Random(11)
    for _ in range(30):
        writer = child.start(REPLACE, path, site=False)
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.001)
        time.sleep(pause.uniform(0.02, 0.04))
        writer.kill()
        writer.communicate()
        data = path.read_bytes()
        assert len(data) == 20000 and len(set(data)) == 1


def test_what_a_killed_write_left_is_swept_when_it_is_old(tmp_path: Path) -> None:
    """D11."""
    path = tmp_path / "config.json"
    old, young = tmp_path / "config.json.tmp-1-1", tmp_path / "config.json.tmp-2-2"
    mine = tmp_path / "config.json.tmpl"
    for file in (old, young, mine):
        file.write_bytes(b"")
    for file in (old, mine):
        os.utime(file, (time.time() - 7200,) * 2)
    files.write_atomic(path, b"new")
    assert sorted(os.listdir(tmp_path)) == ["config.json", "config.json.tmp-2-2", "config.json.tmpl"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640, 0o755])
def test_a_rewrite_keeps_the_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"old")
    path.chmod(mode)
    files.write_atomic(path, b"new", mode=None)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    """I9."""
    old = os.umask(umask)
    try:
        files.write_atomic(tmp_path / "a" / "b" / "file", b"x")
        files.append(tmp_path / "a" / "log", b"x\n")
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*")}
    if umask != 0o777:
        assert modes.pop("log") == 0o600
    assert {name: mode for name, mode in modes.items() if name in ("b", "file")} == {"b": 0o700, "file": 0o600}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_write_goes_to_the_target_of_a_link(tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "config.json"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link = tmp_path / "config.json"
    link.symlink_to(target)
    files.write_atomic(link, b"new", mode=None)
    assert link.is_symlink() and target.read_bytes() == b"new"


def test_a_log_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    """A7, I8."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine\n")
    (tmp_path / "log").symlink_to(victim)
    with pytest.raises(OSError):
        files.append(tmp_path / "log", b"x\n")
    assert victim.read_bytes() == b"mine\n"


def test_a_bounded_read_ends_at_its_limit_and_at_what_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_bounded(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4"):
        files.read_bounded(path, 4)
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError):
            files.read_bounded(other, 5)


def test_rotation_keeps_every_line_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number in range(100):
        files.append(log, b"%03d\n" % number, limit=40)
    parts = [Path(part) for part in files.rotated(log)]
    assert len(parts) == 9 and all(part.stat().st_size <= 40 for part in parts)
    assert b"".join(part.read_bytes() for part in [*parts, log]) == b"".join(b"%03d\n" % n for n in range(100))


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with files.locked(tmp_path / "lock"):
        with pytest.raises(files.LockTaken), files.locked(tmp_path / "lock", timeout=0):
            pass
    with files.locked(tmp_path / "lock", timeout=0):
        pass


def test_an_append_that_does_not_wait_goes_on_without_the_lock(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with files.locked(files.sidecar(log)):
        files.append(log, b"x\n", wait=False)
    assert log.read_bytes() == b"x\n"


@pytest.mark.parametrize(("mode", "says"), [(0o666, "writable by everybody"), (0o602, "by everybody"), (0o644, None)])
def test_a_file_that_others_can_write_is_not_trusted(tmp_path: Path, mode: int, says: str | None) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"")
    path.chmod(mode)
    why = rights.others_can_write(path)
    assert why is None if says is None else says in (why or "")


def test_a_list_that_lets_another_user_write_is_seen(tmp_path: Path) -> None:
    """The mode alone does not tell: its bits of the group are then those of the list's mask."""
    path = tmp_path / "config.json"
    path.write_bytes(b"")
    path.chmod(0o644)
    # user::rw-, user:7777:rw-, group::---, mask::rw-, other::---
    entries = [(1, 6, -1), (2, 6, 7777), (4, 0, -1), (16, 6, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert rights.others_can_write(path) == "is writable by others, by an access control list"
    path.chmod(0o640)  # takes the right to write out of the mask
    assert rights.others_can_write(path) is None


PRIVATE = "import sys; from scheduler.disk import rights; print(rights.others_can_write(sys.argv[1]))"


@pytest.mark.parametrize(
    ("group", "others", "trusted"),
    [
        ("me:x:{gid}:", "", True),
        ("me:x:{gid}:me", "", True),
        ("me:x:{gid}:other", "", False),
        ("me:x:{gid}:", "other:x:7777:{gid}::/:/bin/sh\n", False),  # it is in no list of members
        ("users:x:{gid}:", "", False),
    ],
)
def test_only_a_group_with_nobody_else_in_it_may_write(tmp_path: Path, group: str, others: str, trusted: bool) -> None:
    """With users and groups of the test's own."""
    boxes.need_sandbox()
    path, uid, gid = tmp_path / "config.json", os.getuid(), os.getgid()
    path.write_bytes(b"")
    path.chmod(0o664)
    (tmp_path / "passwd").write_text(f"me:x:{uid}:{gid}::/:/bin/sh\n" + others.format(gid=gid))
    (tmp_path / "group").write_text(group.format(gid=gid) + "\n")
    mounts = [word for name in ("passwd", "group") for word in ("--ro-bind", str(tmp_path / name), f"/etc/{name}")]
    argv = ["bwrap", "--bind", "/", "/", *mounts, sys.executable, "-c", PRIVATE, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == ("None\n" if trusted else "is writable by a group (mode 664)\n")


def test_a_file_moved_aside_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"broken")
    assert Path(files.move_aside(path, "20261201T0900")).read_bytes() == b"broken"
    assert not path.exists()
