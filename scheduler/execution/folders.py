"""Delete folders that others filled, whatever their rights, and never by way of a link; tell of a disk that refuses."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from scheduler.errors import SchedulerError


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Turn an OSError into a line for the user: `what` could not be done, where, and why."""
    try:
        yield
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        raise SchedulerError(f"{what}: {error.strerror or error}{where}", "free space or mend the rights") from error


def delete_folder(path: Path) -> None:
    """Delete a folder with all that is in it, read-only folders too; links are deleted, never followed.

    Somebody else who deletes it at the same time is no error. Raises OSError for what stays.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        try:
            shutil.rmtree(path)
        except PermissionError:
            unlock_folders(path)
            shutil.rmtree(path)


def unlock_folders(path: Path) -> None:
    """Give the owner all rights on a folder and those below it, as far as they are ours."""
    _unlock(str(path))
    for folder, below, _ in os.walk(path):
        for name in below:  # before the walk goes down into them
            _unlock(os.path.join(folder, name))


def _unlock(folder: str) -> None:
    with contextlib.suppress(OSError):
        if not os.path.islink(folder):
            os.chmod(folder, os.lstat(folder).st_mode | stat.S_IRWXU)
