"""Whether the runner lives, and how a hook starts it: detached, so that neither waits for the other.

Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import os

from scheduler.disk import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scheduler.disk.paths import Paths

# What the client sets for one session and what belongs to a run; the runner outlives both.
SESSION_NAMES = ("AI_AGENT", "CLAUDE_EFFORT", "CLAUDE_ENV_FILE", "CLAUDE_PID", "CLAUDE_PROJECT_DIR", "COLUMNS", "LINES")
SESSION_PREFIXES = (
    "CLAUDECODE",
    "CLAUDE_CODE_BRIDGE_",
    "CLAUDE_CODE_CHILD_",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_MESSAGING_",
    "CLAUDE_CODE_SESSION_",
    "CLAUDE_PLUGIN_",
    "SCHEDULER_PLUGIN_",
    "SCHEDULER_STARTED_BY",
)


class Runtime:
    """What the last set-up left: who runs the package, where it is, which version it has."""

    __slots__ = ("package", "python", "version")

    def __init__(self, python: str, package: str, version: str) -> None:
        self.python = python
        self.package = package
        self.version = version

    @property
    def usable(self) -> bool:
        return os.access(self.python, os.X_OK) and os.path.isdir(self.package)


def runtime(paths: Paths) -> Runtime | None:
    """The last set-up; None where there never was one."""
    try:
        lines = os.fsdecode(files.read_bounded(paths.runtime, 16384)).splitlines()
    except OSError:
        return None
    return Runtime(lines[1], lines[2], lines[3]) if len(lines) >= 4 else None


def is_alive(paths: Paths) -> bool:
    """Whether somebody listens at the runner's socket. Changes the working directory: a socket's path has 104 bytes."""
    import _socket

    folder, name = os.path.split(paths.runner_sock)
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        client.setblocking(False)
        os.chdir(folder)
        client.connect(name)
    except BlockingIOError:  # so many ask it at once that we would have to wait
        return True
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return False
    finally:
        client.close()
    return True


def start(found: Runtime, env: Mapping[str, str], log: str) -> None:
    """Start the runner and leave it alone. It is of no harm where one lives: the second one leaves."""
    _run([found.python, "-I", found.package, "runner"], env, log)


def refresh(root: str, env: Mapping[str, str], log: str) -> None:
    """Set up the plugin's own version, and let the runner change to it between runs."""
    _run(["/bin/sh", os.path.join(root, "scripts", "scheduler"), "restart"], env, log)


def _run(argv: list[str], env: Mapping[str, str], log: str) -> None:
    detach(lambda: os.execve(argv[0], argv, runner_environment(env)), log)


def runner_environment(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without what belongs to the session. For an installed plugin, with what tells the runner of its removal:
    SCHEDULER_STARTED_BY=plugin, SCHEDULER_PLUGIN_DATA, and SCHEDULER_PLUGIN_ROOT where that is the client's own copy.
    """
    kept = {name: env[name] for name in env if name not in SESSION_NAMES and not name.startswith(SESSION_PREFIXES)}
    root, data = env.get("CLAUDE_PLUGIN_ROOT", ""), env.get("CLAUDE_PLUGIN_DATA", "").rstrip("/")
    if data and not data.endswith("-inline"):  # the client's name for --plugin-dir
        kept["SCHEDULER_STARTED_BY"] = "plugin"
        kept["SCHEDULER_PLUGIN_DATA"] = data
        if "/plugins/cache/" in root or root.startswith(env.get("CLAUDE_CODE_PLUGIN_CACHE_DIR") or "\0"):
            kept["SCHEDULER_PLUGIN_ROOT"] = root
    return kept


def detach(work: Callable[[], object], log: str = os.devnull) -> None:
    """Carry out `work` in a process of its own session that init adopts, with /dev/null as stdin and `log` as the rest.

    Returns at once. The client waits until its pipes close and kills a slow hook's descendants, so nothing of ours may
    stay its descendant or hold them.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            _lose_everything(log)
            work()
    finally:
        os._exit(0)


def _lose_everything(log: str) -> None:
    os.chdir("/")
    null = out = os.open(os.devnull, os.O_RDWR)
    try:
        out = files.open_own(log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    except OSError:  # a full disk or a link in its place; the work goes on all the same
        pass
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.closerange(3, 1024)
