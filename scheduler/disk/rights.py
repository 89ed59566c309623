"""Who may write to a file, told by its owner and mode.

Hook-safe: os, stat and sys only, Python 3.9 syntax. Errors are OSError.
"""

from __future__ import annotations

import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from scheduler.disk.files import AnyPath


def others_can_write(path: AnyPath) -> str | None:
    """Why a file must not be trusted, or None: writable by everybody, by a group with others in it, of another owner.

    A private group, as umask 002 presumes, is the user's first, has the user's name, and nobody else in it.
    """
    info = os.stat(path)
    if info.st_uid not in (os.getuid(), 0):
        return f"is owned by another user (uid {info.st_uid})"
    if info.st_mode & 0o002:
        return f"is writable by everybody (mode {stat.S_IMODE(info.st_mode):o})"
    if info.st_mode & 0o020 and _has_list(path):
        return "is writable by others, by an access control list"
    if info.st_mode & 0o020 and not _is_private_group(info.st_gid):
        return f"is writable by a group (mode {stat.S_IMODE(info.st_mode):o})"
    return None


def exposed(path: AnyPath) -> tuple[str, str] | None:
    """Of a file and the folders that hold it (its own and, where it is a link, that of its target): which must not be
    trusted, and why. FileNotFoundError where there is none."""
    path = os.fspath(path)
    for place in dict.fromkeys((path, os.path.dirname(path), os.path.dirname(os.path.realpath(path)))):
        why = others_can_write(place)
        if why:
            return place, why
    return None


def _has_list(path: AnyPath) -> bool:
    """Whether a file has an access control list, of which the group's bits of the mode only tell the most it allows."""
    try:
        return sys.platform == "linux" and bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        return False


def _is_private_group(gid: int) -> bool:
    import grp  # only here: a hook never gets this far
    import pwd

    try:
        me, group = pwd.getpwuid(os.getuid()), grp.getgrgid(gid)
    except KeyError:  # somebody without a name, as in a container: nobody can tell who else is in the group
        return False
    if gid != me.pw_gid or group.gr_name != me.pw_name or any(name != me.pw_name for name in group.gr_mem):
        return False
    # Whose first group it is, as `users` or `staff` is of many, is not among its members.
    return all(user.pw_gid != gid or user.pw_uid == me.pw_uid for user in pwd.getpwall())
