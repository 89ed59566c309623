"""What the operating system is told about the runner: a launcher, and the unit or agent that starts it. Pure.

Neither names a program of ours: an update puts new code into a new folder. The launcher is a fixed place, and looks at
each start into the file in which every set-up writes down what is to be started.
"""

from __future__ import annotations

import plistlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.errors import SchedulerError

STARTED_BY = "service"
"""What SCHEDULER_STARTED_BY says to a runner that the service started."""

STOP_SECONDS = 90
"""What the runner gets to end, before it is killed with all that it runs."""

RESTART_SECONDS = 2

_MADE_BY = "made by `scheduler service install`; `scheduler service uninstall` removes it"


@dataclass(frozen=True)
class Installed:
    """A program that is updated in its place, as pip and uv do."""

    python: str
    package: str


def launcher(environment: Mapping[str, str], log: str, program: Installed | str) -> bytes:
    """A shell script that becomes the runner. `program` as text is the file whose second and third lines name it.

    Where that file names nothing that is there (an emptied cache), the script waits for the next set-up.
    """
    head = [
        "#!/bin/sh",
        f"# Starts the runner of the scheduler for Claude Code; {_MADE_BY}.",
        "umask 077",
        f"export SCHEDULER_STARTED_BY={STARTED_BY}",
        *(f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())),
        f"cd / && exec </dev/null >>{shlex.quote(log)} 2>&1",
    ]
    if isinstance(program, Installed):
        last = [f"exec {shlex.quote(program.python)} -I {shlex.quote(program.package)} runner"]
    else:
        last = [
            f"file={shlex.quote(program)}",
            'load() { { read -r _ && IFS= read -r python && IFS= read -r package; } <"$file" && [ -x "$python" ] &&',
            '    [ -f "$package/__main__.py" ]; } 2>/dev/null',
            "if ! load; then",
            '    echo "the service waits: $file names no program; run any command of the scheduler, which sets it up"',
            "    until load; do sleep 10; done",
            "fi",
            'exec "$python" -I "$package" runner',
        ]
    return ("\n".join([*head, *last]) + "\n").encode("utf-8", "surrogateescape")


def same_launcher(one: bytes, other: bytes) -> bool:
    """Whether two launchers differ at most in the environment that they give."""
    return _without_environment(one) == _without_environment(other)


def _without_environment(text: bytes) -> bytes:
    head, _, rest = text.partition(b"\ncd / && exec ")
    return b"\n".join(head.splitlines()[:4]) + rest


def unit(launcher_path: str) -> bytes:
    """The unit for `systemd --user`.

    `on-failure`: a runner that is told to stop stays stopped; one that was killed comes back. `mixed`: only the runner
    is asked to end, which ends what it started. `OOMPolicy`: an agent that eats all memory does not take it along.
    """
    return f"""\
# {_MADE_BY[0].upper()}{_MADE_BY[1:]}.
[Unit]
Description=Runner of the scheduler for Claude Code
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/bin/sh {_quoted(launcher_path)}
Restart=on-failure
RestartSec={RESTART_SECONDS}
KillMode=mixed
TimeoutStopSec={STOP_SECONDS}
OOMPolicy=continue

[Install]
WantedBy=default.target
""".encode()


def agent(label: str, launcher_path: str) -> bytes:
    """The property list for launchd, which means the same."""
    return plistlib.dumps(
        {
            "Label": label,
            "ProgramArguments": ["/bin/sh", _encodable(launcher_path)],
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": RESTART_SECONDS,
            "ExitTimeOut": STOP_SECONDS,
        },
        sort_keys=False,
    )


def _quoted(path: str) -> str:
    """A word of a unit's command line."""
    for char, said in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        path = path.replace(char, said)
    return f'"{_encodable(path)}"'


def _encodable(path: str) -> str:
    if not path.isprintable():
        raise SchedulerError(f"a service cannot be told the path {path!a}", "rename the folder that has such a name")
    return path
