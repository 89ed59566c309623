"""A project as the hooks meet it, and the hooks as the client starts them: through the real launcher."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scheduler.disk import glance
from scheduler.disk.paths import Paths, file_changes
from tests import canary

ROOT = Path(__file__).resolve().parents[1]
BASE = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
SESSION = "5e551011-0000-4000-8000-000000000000"
RUN = "0a1b2c3d-0000-4000-8000-000000000000"

# Stands for the package: tells how it was started, then listens as a runner does until it is told to end.
RUNNER = """\
import json, os, socket, sys
os.write(1, b"out\\n")
state = os.environ["SCHEDULER_HOME"]
os.chdir(state)
server = socket.socket(socket.AF_UNIX)
server.bind("runner.sock")
server.listen()
env = {name: value for name, value in os.environ.items() if not name.startswith("CANARY")}  # a witness, no sink
told = {"argv": sys.argv, "env": env, "pid": os.getpid(), "ppid": os.getppid(), "sid": os.getsid(0),
        "fds": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) < 3}}
with open("started.tmp", "w") as file:
    json.dump(told, file)
os.rename("started.tmp", "started.json")
while server.accept()[0].recv(10) != b"end":
    pass
"""


class Bed:
    """A home, a state folder, a set-up, and one repository with tasks; all below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.state = folder / "state"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "SCHEDULER_HOME": str(self.state)}
        self.env |= canary.ENVIRONMENT
        self.paths = Paths(self.env)
        self.project = Path(os.path.realpath(self.repository(folder / "project")))
        self.write_config({"id": "nightly"}, {"id": "weekly"}, {"id": "off", "enabled": False})
        self.set_up()

    def repository(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main", cwd=folder)
        (folder / "file.txt").write_text("one\n")
        self.git("add", "-A", cwd=folder)
        self.git("-c", "user.name=T", "-c", "user.email=t@example.invalid", "commit", "-qm", "first", cwd=folder)
        return folder

    def git(self, *words: str, cwd: Path) -> None:
        subprocess.run(["git", *words], cwd=cwd, env=self.env, check=True, capture_output=True)

    def write_config(self, *tasks: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        folder = self.project / ".omc" / "scheduler"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"version": 1, "settings": settings or {}, "tasks": tasks}))

    def set_up(self, python: str = BASE, version: str = "0.1.0") -> None:
        """Leave what scripts/scheduler leaves behind: which interpreter to use, and the package (a stand-in)."""
        package = self.home / "package"
        package.mkdir(exist_ok=True)
        (package / "__main__.py").write_text(RUNNER)
        runtime = Path(self.paths.runtime)
        runtime.parent.mkdir(parents=True, exist_ok=True)
        runtime.write_text(f"{python}\n{sys.executable}\n{package}\n{version}\n")

    def enable(self, **fields: Any) -> None:
        """Have the glance say that the project is enabled."""
        base = {"enabled": True, "trusted": True, "suspended": None, "tasks": 3, "active": 2}
        base.update({"next": [], "running": 0, "recent": [], "open": []})
        glance.update(self.paths.glance, str(self.project), {**base, **fields})

    def event(self, name: str, **fields: Any) -> dict[str, Any]:
        cwd = str(fields.pop("cwd", self.project))
        return {"session_id": SESSION, "cwd": cwd, "hook_event_name": name, **fields}

    def write_event(self, path: Path, content: str = "hello\n", **fields: Any) -> dict[str, Any]:
        """The event of a Write that made `path` (it is made)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        response = {"type": "create", "filePath": str(path), "structuredPatch": [], "originalFile": None}
        return self.event(
            "PostToolUse",
            **{
                "tool_name": "Write",
                "tool_input": {"file_path": str(path), "content": content},
                "tool_response": response,
                "tool_use_id": "toolu_01",
                **fields,
            },
        )

    def call(self, hook: str, event: Any, *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Any:
        """The reply of a hook that must be quiet and exit by 0; None where it says nothing."""
        done = self.launch(hook, event, cwd=cwd, env=env)
        assert (done.returncode, done.stderr) == (0, b""), done
        return json.loads(done.stdout) if done.stdout else None

    def launch(
        self, hook: str, event: Any, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        data = event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode() + b"\n"
        return subprocess.run(
            ["sh", str(ROOT / "scripts" / "hook"), hook],
            input=data,
            cwd=cwd or self.project,
            env={**self.env, **(env or {})},
            capture_output=True,
            timeout=30,
        )

    def start(self, source: str = "startup", **kwargs: Any) -> Any:
        return self.call("session_start", self.event("SessionStart", source=source), **kwargs)

    def end(self, reason: str = "prompt_input_exit", **kwargs: Any) -> Any:
        return self.call("session_end", self.event("SessionEnd", reason=reason), **kwargs)

    def changes(self, project: Path | None = None) -> list[dict[str, Any]]:
        path = Path(file_changes(str(project or self.project)))
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def log(self) -> str:
        path = Path(self.paths.hooks_log)
        return path.read_text() if path.exists() else ""

    def files(self) -> set[str]:
        """All files below the folder, but for git's own."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and ".git" not in path.parts)
        return {str(path.relative_to(self.folder)) for path in found}

    @contextmanager
    def runner(self) -> Iterator[None]:
        """Somebody who listens at the runner's socket."""
        self.state.mkdir(exist_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            back = os.open(".", os.O_RDONLY)
            os.chdir(self.state)
            server.bind("runner.sock")
            os.fchdir(back)
            os.close(back)
            server.listen()
            yield
        (self.state / "runner.sock").unlink()

    def started(self, patience: float = 10.0) -> dict[str, Any]:
        """What the stand-in of the runner tells of its start; it is ended."""
        file = self.state / "started.json"
        end = time.monotonic() + patience
        while not file.exists():
            assert time.monotonic() < end, "no runner was started"
            time.sleep(0.01)
        told: dict[str, Any] = json.loads(file.read_text())
        with socket.socket(socket.AF_UNIX) as client:
            back = os.open(".", os.O_RDONLY)
            os.chdir(self.state)
            client.connect("runner.sock")
            os.fchdir(back)
            os.close(back)
            client.sendall(b"end")
        return told
