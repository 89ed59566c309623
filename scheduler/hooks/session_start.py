"""SessionStart: says how the project's tasks stand, and starts the runner where it should run.

Prints one JSON object or nothing; exits 0 whatever happens.
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    gc.disable()  # in a process that lives a few milliseconds it only costs
    sys.path.insert(0, __file__.rpartition("/scheduler/hooks/")[0])
    from scheduler.hooks import arrival, wire

    wire.run("session_start", arrival.answer)


if __name__ == "__main__":
    main()
