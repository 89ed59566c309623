"""What is well and what is not: facts in, findings out. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, NamedTuple

from scheduler.core import format as fmt
from scheduler.core.when import from_iso

Level = Literal["ok", "warn", "fail"]
SIGNS: dict[Level, str] = {"ok": "✓", "warn": "!", "fail": "✗"}

BUILT = datetime(2026, 7, 1, tzinfo=timezone.utc)
"""This version was made later, by a margin: a clock that shows less is wrong."""

OLDEST_CLIENT = (2, 1, 197)  # the oldest that is tested
OLDEST_GIT = (2, 31)
MERGING_GIT = (2, 38)
JUMP = timedelta(minutes=10)
LOW = 1000 * 1000 * 1000  # bytes free, below which a night of work may fill the disk
FEW_FILES = 10_000
STALE_LOCK = 600.0  # seconds after which hardly any git still works under a lock
IN_FLIGHT = timedelta(minutes=2)  # what is younger may be on its way from one file to the other
_NETWORK = frozenset(
    "nfs nfs4 cifs smb smb2 smb3 smbfs afs afpfs webdav 9p ceph glusterfs lustre beegfs gpfs ncpfs coda davfs "
    "fuse.sshfs fuse.glusterfs fuse.rclone fuse.s3fs fuse.davfs2 fuse.curlftpfs".split()
)
_NUMBER = re.compile(r"\d+(?:\.\d+)+")


SET_THE_CLOCK = "set the clock, by hand or by NTP (`timedatectl set-ntp true`)"


class Finding(NamedTuple):
    """One finding. A `fail` makes every run fail that needs it; a `warn` may. `mend` says what to do about it."""

    level: Level
    name: str
    text: str
    mend: str = ""

    def line(self) -> str:
        """For people: the level as a word."""
        return f"{self.level.ljust(4)}  {self.name}: {self.text}"


def version(text: str) -> tuple[int, ...]:
    """The numbers of the first version in a text; none where there is none."""
    found = _NUMBER.search(text)
    return tuple(map(int, found[0].split("."))) if found else ()


def client(text: str) -> Finding:
    """Whether the client that gives this as its version is one that we know."""
    if not version(text):
        return Finding("warn", "client", f"its version cannot be told from {text!r:.60}", "run `claude --version`")
    if version(text) < OLDEST_CLIENT:
        least = ".".join(map(str, OLDEST_CLIENT))
        return Finding("warn", "client", f"version {text} is older than {least}, the oldest tested", "claude update")
    return Finding("ok", "client", f"version {text}")


def git(text: str) -> Finding:
    """Whether the git that says this of itself is new enough."""
    found = version(text)
    shown = ".".join(map(str, found)) or ascii(text)[:60]
    if found < OLDEST_GIT:
        return Finding("fail", "git", f"version {shown}; 2.31 is needed", "install a newer git")
    if found < MERGING_GIT:
        return Finding("warn", "git", f"version {shown}; 'merge' needs 2.38", "install a newer git")
    return Finding("ok", "git", f"version {shown}")


def unset_words(now: datetime) -> str:
    """What is wrong with a clock that nobody has set."""
    return f"the clock shows {now:%Y-%m-%d %H:%M}, which is before this version was made"


def is_unset(now: datetime, built: datetime = BUILT) -> bool:
    """Whether the clock shows a time that was over when this version was made, as one does that nobody has set."""
    return now < built


def clock(now: datetime, latest: datetime | None, what: str) -> Finding:
    """Whether the clock can be right. `latest`: the newest time that anything of ours was written at; `what`: that."""
    if is_unset(now):
        text = f"{unset_words(now)}: nothing starts until it is set"
        return Finding("fail", "clock", text, SET_THE_CLOCK)
    if latest is not None and latest - now > JUMP:
        by = fmt.duration((latest - now).total_seconds())
        text = f"{what} is from a time that is {by} from now: the clock was ahead, or is behind"
        return Finding("warn", "clock", text, "compare it with another clock; nothing runs twice because of it")
    return Finding("ok", "clock", f"{fmt.clock(now, now.tzinfo)}")


def zone(name: str | None, problem: str, has_data: bool) -> Finding:
    """Whether the system's time zone has a name, and zones have data."""
    if not has_data:
        text = "there is no time zone data: only UTC works"
        return Finding("fail", "time zone", text, "install tzdata (Debian: apt install tzdata)")
    if name is None:
        return Finding("warn", "time zone", f"the system's zone is not known: {problem}", "set it: timedatectl or TZ")
    return Finding("ok", "time zone", name)


def disk(what: str, path: str, free: int, files: int | None, floor: int) -> Finding:
    """Whether there is room: `free` bytes and so many `files`, of a disk on which nothing starts below `floor`."""
    said = f"{fmt.size(free)} free for {what} ({path})"
    if free < floor:
        return Finding("fail", "disk", f"{said}: nothing starts below {fmt.size(floor)}", "make room there")
    if files is not None and files < FEW_FILES:
        return Finding("warn", "disk", f"only {files} more files fit for {what} ({path})", "remove files there")
    if free < LOW:
        return Finding("warn", "disk", said, "make room there; 'prune --dry-run' tells what we could remove")
    return Finding("ok", "disk", said)


def mounts(text: str) -> dict[str, str]:
    """The kind of file system at each mount point, from /proc/self/mountinfo or the words of `mount`."""
    found = {}
    for line in text.splitlines():
        head, middle, tail = line.partition(" - ")
        fields = head.split(" ")
        if middle and len(fields) > 4:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
            found[point] = tail.split(" ")[0]
        else:
            said = re.match(r".* on (/.*) \(([\w.]+)", line)
            if said:
                found[said[1]] = said[2]
    return found


def file_system(what: str, path: str, known: Mapping[str, str]) -> Finding:
    """Whether the file system below a real path is one on which locks and appends hold."""
    above = [point for point in known if path == point or path.startswith(point.rstrip("/") + "/")]
    kind = known[max(above, key=len)] if above else None
    if kind is None:
        return Finding("ok", "file system", f"of {what}: not told by the system")
    if kind in _NETWORK:
        text = f"{what} ({path}) is on a network file system ({kind}): locks and appends are not safe there"
        return Finding("warn", "file system", text, "keep it on a local disk: SCHEDULER_HOME, or another clone")
    return Finding("ok", "file system", f"of {what}: {kind}")


def lock_holders(text: str, inode: int) -> list[int]:
    """The processes that hold an flock on a file, from /proc/locks."""
    rows = (line.split() for line in text.splitlines())
    return [int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5].endswith(f":{inode}")]


def compare(
    claims: Mapping[str, datetime], records: Iterable[Mapping[str, Any]], live: Collection[str], now: datetime
) -> Iterator[Finding]:
    """The history against the state: `claims` (run, when it was claimed) of a time, the folded records of that time,
    the runs that the state has under way.
    """
    by_id = {str(record["id"]): record for record in records}
    settled = now - IN_FLIGHT
    unwritten = [run for run, at in claims.items() if run not in by_id and run not in live and at < settled]
    if unwritten:
        text = f"{fmt.count(len(unwritten), 'run')} claimed and not on record: {_some(unwritten)}"
        yield Finding("warn", "history", text, "nothing to do: they do not run again; was the history edited or lost?")
    since = min(claims.values(), default=now)
    unclaimed = [run for run, record in by_id.items() if run not in claims and _was_claimed(record, since)]
    if unclaimed:
        text = f"{fmt.count(len(unclaimed), 'run')} on record and never claimed: {_some(unclaimed)}"
        yield Finding("warn", "history", text, "nothing to do: was the history edited, or the state lost?")
    lost = [run for run, record in by_id.items() if record["status"] == "running" and run not in live]
    if lost:
        text = f"{fmt.count(len(lost), 'run')} on record as running, which nobody runs: {_some(lost)}"
        yield Finding("warn", "history", text, "'restart' puts the end on record")
    over = [run for run in live if run in by_id and _is_over(by_id[run], settled)]
    if over:
        text = f"{fmt.count(len(over), 'run')} under way by the state and over by the history: {_some(over)}"
        yield Finding("warn", "history", text, "'restart' settles it")


def abandoned(interrupted: Collection[str], waiting: Collection[str]) -> Iterator[Finding]:
    """Runs that the state has while no runner is at work: `interrupted` ones, and those `waiting` for their turn or for
    a usage limit to end."""
    if interrupted:
        text = f"{fmt.count(len(interrupted), 'run')} under way when the runner ended: {_some(interrupted)}"
        yield Finding("warn", "history", text, "'start' puts the end on record, and saves the work")
    if waiting:
        text = f"{fmt.count(len(waiting), 'run')} waiting, and no runner is at work: {_some(waiting)}"
        yield Finding("warn", "history", text, "'start' has them run, or go on, when it is time to")


def _was_claimed(record: Mapping[str, Any], since: datetime) -> bool:
    """Whether a run of a claimed occurrence would have to be among the claims made since then."""
    if record["status"] == "skipped" or not record.get("scheduledFor"):
        return False
    at = _moment(record.get("startedAt"))
    return at is not None and at > since


def _is_over(record: Mapping[str, Any], settled: datetime) -> bool:
    at = _moment(record.get("completedAt"))
    return record["status"] != "running" and at is not None and at < settled


def _moment(text: Any) -> datetime | None:
    try:
        return from_iso(text)
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None


def _some(runs: Collection[str]) -> str:
    shown = sorted(run[:8] for run in runs)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
