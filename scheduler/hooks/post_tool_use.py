"""PostToolUse: notes which file a tool changed. Prints nothing; exits 0 whatever happens."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    gc.disable()  # in a process that lives a few milliseconds it only costs
    sys.path.insert(0, __file__.rpartition("/scheduler/hooks/")[0])
    from scheduler.hooks import change, wire

    wire.run("post_tool_use", change.note)


if __name__ == "__main__":
    main()
