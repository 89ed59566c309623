"""Starts what the first word asks for: the supervisor of one run, the runner, or the command line.

Runs as `python -I …/scheduler WORD…` (a folder), as `python -I …/scheduler/__main__.py WORD…` and by `-m`. With
`supervise` nothing is imported that is not in the standard library, so that it also starts under `-S`.
"""

from __future__ import annotations

import gc
import os
import sys


def _put_the_package_on_the_path() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    if sys.path[0] == folder:  # else `core` and `store` would be top-level names
        del sys.path[0]
    sys.path.insert(0, os.path.dirname(folder))


def _incomplete(error: ImportError) -> bool:
    """Whether the environment that the launcher made has lost a package; then it is told."""
    package = (error.name or "scheduler").partition(".")[0]
    ours = package == "scheduler" or package in sys.stdlib_module_names
    if ours or not os.path.exists(os.path.join(sys.prefix, ".complete")):
        return False
    print(f"scheduler: the Python package {package} is missing or damaged.", file=sys.stderr)
    print(f"  Remove the folder {sys.prefix}, then run the same command again: it makes it anew.", file=sys.stderr)
    return True


def main() -> int:
    """Run and return the exit code."""
    if not __package__:
        _put_the_package_on_the_path()
    if sys.argv[1:2] == ["supervise"]:
        from scheduler.execution.supervise import main as supervise

        return supervise(sys.argv[2:])
    try:
        if sys.argv[1:] == ["runner"]:
            from scheduler.runner.loop import main as runner

            return runner(os.environ)
        gc.disable()  # imports make no garbage, and to look for it costs a tenth of a short command's time
        from scheduler.cli.main import main as command_line

        return command_line()
    except ImportError as error:
        if not _incomplete(error):
            raise
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
