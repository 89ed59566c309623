"""`scripts/bench soak`: a day of 2,000 tasks on a clock of the test's, with kills, clock jumps, full disks and edits.

Prints the sums: every occurrence is a run or was skipped for a reason on record. tests/soak.py says how it is done.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from tests.bench import figures
from tests.soak import DAY, SHORT, soak


def main() -> int:
    """Soak; 0 where everything adds up."""
    parser = argparse.ArgumentParser(prog="scripts/bench soak", description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="the one that the tests do")
    parser.add_argument("--seed", type=int, default=1, help="what kills, jumps and edits when (%(default)s)")
    options = parser.parse_args()
    plan = replace(SHORT if options.short else DAY, seed=options.seed)
    hours = plan.span.total_seconds() / 3600
    print(figures.machine())
    print(f"{plan.tasks:,} tasks in {plan.projects} projects, {hours:g} simulated hours, seed {plan.seed}", flush=True)
    begin = time.monotonic()
    with figures.workplace() as folder:
        sums = soak(plan, folder)
    print("\n".join(sums.lines()))
    print(f"took {time.monotonic() - begin:.0f} s; {'all adds up' if not sums.wrong else 'it does NOT add up'}")
    return 1 if sums.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
