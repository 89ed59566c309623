"""A scheduler of a test's own: home, state, a real repository, a real detached runner, and ways to wait for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

from scheduler.core.parse import trigger_digest
from scheduler.disk import paths as places
from scheduler.disk.paths import Paths
from scheduler.runner import control
from scheduler.store import config, history, trust
from scheduler.store.state import State
from tests import canary

T = TypeVar("T")
PATIENCE = 60.0


def wait_until(look: Callable[[], T], patience: float = PATIENCE, what: str = "") -> T:
    """The first true value that `look` gives; AssertionError when it gives none in time."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {patience} s in vain {what}")


def soon(seconds: float = 1.0) -> str:
    """A moment that comes, in ISO 8601."""
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def shell_task(task_id: str, command: str, **fields: Any) -> dict[str, Any]:
    """A task in JSON: a shell command, by default on a cron that does not come during a test.

    `execution`, `policy`, `worktree` and `trigger` are merged in.
    """
    worktree = fields.pop("worktree", {})
    return {
        "id": task_id,
        "name": task_id.replace("-", " "),
        "trigger": fields.pop("trigger", {"type": "cron", "expression": "0 0 29 2 *", "timezone": "UTC"}),
        "execution": {
            "type": "shell",
            "command": command,
            "timeout": 60,
            "worktree": worktree,
            **fields.pop("execution", {}),
        },
        **fields,
    }


def measured() -> dict[str, str]:
    """What lets coverage see into processes that we start with an environment of their own."""
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_PROCESS_")}


class Rig:
    """One home with one project in it, unless more are added."""

    def __init__(self, folder: Path, extra: Mapping[str, str] | None = None) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "SCHEDULER_HOME": str(folder / "state"),
            "LANG": "C.UTF-8",
            **measured(),
            **canary.ENVIRONMENT,
            **(extra or {}),
        }
        self.paths = Paths(self.env)
        self.project = self.repository(folder / "project")
        self._pids: list[int] = []

    def repository(self, folder: Path) -> Path:
        """A real repository with one commit."""
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main", cwd=folder)
        self.git("config", "user.name", "Test Person", cwd=folder)
        self.git("config", "user.email", "person@example.invalid", cwd=folder)
        (folder / "file.txt").write_text("one\n")
        (folder / ".gitignore").write_text("*.ignored\n")
        self.git("add", "-A", cwd=folder)
        self.git("commit", "-q", "-m", "first", cwd=folder)
        return Path(os.path.realpath(folder))

    def git(self, *words: str, cwd: Path | None = None) -> str:
        """Run git as the user would; its output."""
        done = subprocess.run(
            ["git", *words], cwd=cwd or self.project, env={**self.env, "GIT_CONFIG_NOSYSTEM": "1"}, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def enable(
        self,
        *tasks: dict[str, Any],
        project: Path | None = None,
        client: str | None = None,
        since: datetime | None = None,
        suspended: bool = False,
        plant: bool = True,
    ) -> None:
        """Write the config, approve it, and let the runner serve it; its tasks count from `since` (default: now).
        `suspended`: some of them may be, by an error. `plant`: with secrets that the test's end searches for."""
        root = str(project or self.project)
        file = Path(places.config_file(root))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            json.dumps({"version": 1, "tasks": [canary.planted(task) if plant else task for task in tasks]})
        )
        source = config.read_source(root)
        parsed, _ = source.vetted(self.env)
        assert suspended or not parsed.problems, parsed.problems
        with trust.lock(self.paths):
            known = trust.read(self.paths)
            known.setdefault(root, trust.Project(root, True, self.env["PATH"], client, "now"))
            trust.write(self.paths, trust.approved(known, source, "now"))
            now = datetime.now(timezone.utc)
            state = State(self.paths.state_db, now)
            state.sync(root, [(task.id, trigger_digest(task), task.enabled) for task in parsed.tasks], since or now)
            state.close()

    def settings(self, **values: Any) -> None:
        """Write the user's settings."""
        Path(self.paths.state).mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(self.paths.settings).write_text(json.dumps(values))

    def start(self) -> int:
        """A living runner; its pid."""
        return self.started(int(control.ensure_runner(self.paths, self.env)["pid"]))

    def started(self, pid: int) -> int:
        """Note a runner, to be ended with the rig."""
        self._pids.append(pid)
        return pid

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """Ask the runner."""
        answer = control.request(self.paths, {"verb": verb, **fields})
        assert answer is not None, "no runner"
        return answer

    def run(self, task_id: str, project: Path | None = None) -> str:
        """Have a task run now; the run's id. Waits until the runner serves the project."""
        root = str(project or self.project)
        wait_until(lambda: "ok" if self._serves(root) else None, what=f"for {root}")
        return str(self.ask("run", project=root, task=task_id)["runId"])

    def _serves(self, root: str) -> bool:
        trusted = trust.read(self.paths)
        return root in trusted and self.ask("status") is not None

    def record(self, run_id: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The final record of a run."""

        def look() -> dict[str, Any] | None:
            found = [r for r in self.records() if r["id"] == run_id and r["status"] != "running"]
            return found[0] if found else None

        return wait_until(look, patience, f"for the end of run {run_id}\n{self.log()}")

    def run_to_end(self, task_id: str, project: Path | None = None) -> dict[str, Any]:
        """Have a task run now; its final record."""
        return self.record(self.run(task_id, project))

    def records(self, project: Path | None = None) -> list[dict[str, Any]]:
        """The folded history of a project, or of all."""
        file = places.history_file(str(project)) if project else self.paths.global_history
        return history.fold(history.read(file))

    def task_records(self, task_id: str) -> list[dict[str, Any]]:
        """The folded history of one task."""
        return [r for r in self.records() if r["taskId"] == task_id]

    def log(self) -> str:
        """What the runner logged."""
        file = Path(self.paths.runner_log)
        return file.read_text() if file.exists() else ""

    def stop(self, *, at_once: bool = True) -> None:
        """Stop the runner, also one that another starts meanwhile, and wait until there is none."""
        asked = {"verb": "stop", "now": at_once}
        wait_until(lambda: control.request(self.paths, asked) is None, what="for the runner's end")

    def kill(self) -> None:
        """End every runner that this rig started, if it still lives; only by pid, only ours."""
        for pid in self._pids:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"scheduler" in words or b"build.py" in words:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                continue


@contextmanager
def rig(folder: Path, extra: Mapping[str, str] | None = None) -> Iterator[Rig]:
    """A rig whose runner is stopped at the end."""
    made = Rig(folder, extra)
    try:
        yield made
    finally:
        try:
            made.stop()
        finally:
            made.kill()
