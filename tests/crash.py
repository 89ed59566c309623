"""One step of a run in a process of its own, to be killed: `python tests/crash.py STEP ROOT PATH BRANCH BASE LOCK`."""

from __future__ import annotations

import sys
from pathlib import Path

RUN = "00000000-0000-0000-0000-000000000009"


def main(step: str, root: str, path: str, branch: str, base: str, lock: str) -> str:
    from scheduler.errors import SchedulerError
    from scheduler.execution import git, rollback, work, worktree

    tree = worktree.Worktree(git.find_project(root), Path(path), branch, base, Path(lock))
    try:
        if step == "create":
            worktree.create(tree)
        elif step == "keep":
            return str(work.keep(tree, "Work"))
        else:
            return str(rollback.rollback(tree, RUN, "Rolled back"))
    except SchedulerError as error:
        return f"refused: {error.message}"
    return "done"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    print(main(*sys.argv[1:]))
