"""Secrets that every test plants where the product could find them, and the search for them in all that it wrote.

One is in the environment of whoever calls us, two are in the config of every task that the rig enables: one known by
the name of its variable, one by its shape alone. Each shell command of the rig prints them before it does its work.
"""

from __future__ import annotations

import base64
import gzip
import mmap
import os
import stat
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Put together when it runs, so that a copy of this file, or of its bytecode, is no leak.
CALLERS = "".join(("cnry-caller-", "Xq7Zk2Vn9", "Tb4Lw8Rj3"))
CONFIGURED = "".join(("cnry-config-", "Hd5Yp1Gs6", "Mf0Qc9Ux2"))
SHAPED = "".join(("ghp_Cnry7W", "v3Ke8Nz1Jt6Pa4Rd9Lb2Xm5", "Qs0Yf7Hg"))
KNOWN_COPIES = ("config.json", "trust.json")
"""What a person wrote into a config stays there, and in the approved copy that later changes are held against."""

ENVIRONMENT = {"CANARY_OF_SUITE_TOKEN": CALLERS}
_TASK = {"CANARY_SECRET": CONFIGURED, "CANARY_TEXT": SHAPED}
_SAY = 'printf "%s, %s\\n" "$CANARY_SECRET" "$CANARY_TEXT"; unset CANARY_SECRET CANARY_TEXT; '
_PARTS = 12


def planted(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task with secrets in its environment; its shell command says them first."""
    execution = dict(task["execution"])
    execution["env"] = {**_TASK, **execution.get("env", {})}
    if execution["type"] == "shell":
        execution["command"] = _SAY + execution["command"]
    return {**task, "execution": execution}


def _needles() -> list[bytes]:
    found = []
    for secret in (CALLERS, CONFIGURED, SHAPED):
        found += [secret[5 : 5 + _PARTS].encode(), secret[-_PARTS:].encode()]
        found += [base64.b64encode(b"x" * at + secret.encode())[4:20] for at in range(3)]
    return found


NEEDLES = _needles()


def leaks(folder: Path) -> list[str]:
    """Where below a folder a planted secret is: names and contents of files, git's messages and names, archives."""
    found = []
    for place, folders, names in os.walk(folder):
        found += [os.path.join(place, name) for name in (*folders, *names) if _holds(os.fsencode(name))]
        if "objects" in folders and "HEAD" in names:
            found += _packed(place)
        for name in names:
            path = os.path.join(place, name)
            if name not in KNOWN_COPIES and any(map(_holds, _contents(path))):
                found.append(path)
    return found


def _holds(data: bytes | mmap.mmap) -> bool:
    return any(data.find(needle) >= 0 for needle in NEEDLES)


def _contents(path: str) -> Iterator[bytes | mmap.mmap]:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > 1 << 20:
                yield from _filled(file.fileno())
                return
            small = file.read()
    except (OSError, ValueError):  # somebody took it away, or a test its rights
        return
    yield small
    if path.endswith(".gz"):
        yield from _unpacked(gzip.decompress, small)
    elif small[:1] == b"x":
        yield from (data for data in _unpacked(zlib.decompress, small) if not data.startswith(b"blob "))


def _filled(fd: int) -> Iterator[mmap.mmap]:
    """The parts of a large file that are no holes: tests make files of gigabytes that have nothing in them."""
    size, at = os.fstat(fd).st_size, 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        start -= start % mmap.ALLOCATIONGRANULARITY
        with mmap.mmap(fd, at - start, access=mmap.ACCESS_READ, offset=start) as data:
            yield data


def _unpacked(unpack: Any, data: bytes) -> Iterator[bytes]:
    try:
        yield unpack(data)
    except (OSError, EOFError, zlib.error):
        return


def _packed(repository: str) -> list[str]:
    """The commits, tags and trees in packs that hold a secret; blobs are the work of others."""
    folder = os.path.join(repository, "objects", "pack")  # a killed client leaves repositories half made
    if not os.path.isdir(folder) or not any(name.endswith(".pack") for name in os.listdir(folder)):
        return []
    command = ["git", "--git-dir", repository, "cat-file", "--batch-all-objects", "--batch"]
    told = subprocess.run(command, capture_output=True, check=False).stdout
    found, at = [], 0
    while (end := told.find(b"\n", at)) >= 0:
        name, kind, size = told[at:end].split()
        body = told[end + 1 : end + 1 + int(size)]
        if kind != b"blob" and _holds(body):
            found.append(f"{repository}: {kind.decode()} {name.decode()}")
        at = end + 2 + int(size)
    return found
