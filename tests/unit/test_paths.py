from __future__ import annotations

import pytest

from scheduler.disk import paths
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError

RUN = "0b6c1c9e-6d0f-4c3e-9a54-2f7f5d1f8a11"


def test_the_home_decides_where_things_are() -> None:
    where = Paths({"HOME": "/home/p"})
    assert where.state == "/home/p/.claude/scheduler"
    assert where.global_history == "/home/p/.claude/logs/execution-history.jsonl"
    assert where.worktrees == "/home/p/.local/state/claude-scheduler/worktrees"
    assert where.cache == "/home/p/.cache/claude-scheduler"


def test_each_place_can_be_moved() -> None:
    moved = {"CLAUDE_CONFIG_DIR": "/c", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/k"}
    where = Paths({"HOME": "/home/p", **moved})
    assert (where.state, where.logs) == ("/c/scheduler", "/c/logs")
    assert (where.worktrees, where.cache) == ("/s/claude-scheduler/worktrees", "/k/claude-scheduler")


def test_one_variable_moves_all_that_is_ours_but_the_cache() -> None:
    where = Paths({"HOME": "/home/p", "CLAUDE_CONFIG_DIR": "/c", "SCHEDULER_HOME": "/x"})
    assert (where.state, where.logs, where.worktrees) == ("/x", "/x/logs", "/x/worktrees")
    assert where.cache == "/home/p/.cache/claude-scheduler"


@pytest.mark.parametrize("env", [{}, {"HOME": ""}, {"HOME": "relative"}, {"HOME": "/h", "SCHEDULER_HOME": "relative"}])
def test_a_home_must_be_absolute(env: dict[str, str]) -> None:
    with pytest.raises(SchedulerError):
        Paths(env)


@pytest.mark.parametrize("task", ["../../x", "a/b", ".", "", "a" * 65, "-rf", "A", "a\0", "a\n", "\u2603", ".."])
def test_no_path_is_built_from_what_is_no_task_id(task: str) -> None:
    """D9."""
    for build in (lambda: paths.task_log("/p", task), lambda: Paths({"HOME": "/h"}).worktree("p-1", task, RUN)):
        with pytest.raises(SchedulerError, match="not a task id"):
            build()


@pytest.mark.parametrize("run", ["", "..", RUN.upper(), RUN[:-1], RUN + "0", RUN.replace("-", "/"), RUN[:-1] + "\n"])
def test_no_path_is_built_from_what_is_no_run_id(run: str) -> None:
    where = Paths({"HOME": "/h"})
    for build in (
        lambda: paths.result_file("/p", run),
        lambda: where.run_folder(run),
        lambda: where.worktree("p", "a", run),
    ):
        with pytest.raises(SchedulerError, match="not a run id"):
            build()
