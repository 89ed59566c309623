"""Every location on disk that the scheduler uses; nothing else builds a path.

Hook-safe: os only, Python 3.9 syntax. All paths are absolute strings.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from scheduler.errors import SchedulerError

CONFIG_FOLDER = os.path.join(".omc", "scheduler")
_ID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
ID_MAX = 64


def is_task_id(text: str) -> bool:
    """Whether `text` is a task's id: `[a-z0-9][a-z0-9-]{0,63}`."""
    return 0 < len(text) <= ID_MAX and text[0] != "-" and _ID_CHARS.issuperset(text)


def is_run_id(text: str) -> bool:
    """Whether `text` is a run's id: a UUID in its canonical lower-case form."""
    parts = text.split("-")
    return [len(p) for p in parts] == [8, 4, 4, 4, 12] and frozenset("0123456789abcdef").issuperset("".join(parts))


def _error(message: str, hint: str) -> SchedulerError:
    from scheduler.errors import SchedulerError  # only here: a hook that wants a path does not pay for it

    return SchedulerError(message, hint)


def _checked(ok: bool, kind: str, text: str) -> str:
    if not ok:
        raise _error(f"not a {kind} id: {ascii(text)[:80]}", "ids are made of a-z, 0-9 and '-'")
    return text


class Paths:
    """The user's folders, from an environment: `SCHEDULER_HOME`, else `CLAUDE_CONFIG_DIR`, XDG variables and `HOME`.

    `SCHEDULER_HOME` moves the state, the global logs and the worktrees together (quickstart and the tests use it).
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        home = env.get("HOME") or ""
        own = env.get("SCHEDULER_HOME") or ""
        if own and not os.path.isabs(own):
            raise _error("SCHEDULER_HOME is not an absolute path", "set it to an absolute path, or unset it")
        if not own and not os.path.isabs(home):
            raise _error("HOME is not set", "set HOME to your home folder")
        self.home = home
        self.claude = env.get("CLAUDE_CONFIG_DIR") or os.path.join(home, ".claude")
        self.state = own or os.path.join(self.claude, "scheduler")
        self.logs = os.path.join(own or self.claude, "logs")
        xdg_state = env.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
        # Never below `.claude`: there the client refuses Write as "a sensitive file".
        self.worktrees = os.path.join(own or os.path.join(xdg_state, "claude-scheduler"), "worktrees")
        xdg_cache = env.get("XDG_CACHE_HOME") or os.path.join(home or own, ".cache")
        self.cache = os.path.join(xdg_cache, "claude-scheduler")
        self.runtime = os.path.join(self.cache, "runtime")
        self.global_history = os.path.join(self.logs, "execution-history.jsonl")
        xdg_config = env.get("XDG_CONFIG_HOME") or os.path.join(home or own, ".config")
        self.systemd_units = os.path.join(xdg_config, "systemd", "user")
        self.launch_agents = os.path.join(home or own, "Library", "LaunchAgents")
        self.is_usual = self.state == os.path.join(home, ".claude", "scheduler")

    def in_state(self, name: str) -> str:
        """A file or folder of the state folder, by its name."""
        return os.path.join(self.state, name)

    @property
    def credentials(self) -> str:
        """Where the client keeps the login that it made itself, but on macOS."""
        return os.path.join(self.claude, ".credentials.json")

    @property
    def settings(self) -> str:
        return self.in_state("settings.json")

    @property
    def off_switch(self) -> str:
        """The user's: as long as it is there, no runner starts anything (disk/switch.py)."""
        return self.in_state("DISABLED")

    @property
    def trust(self) -> str:
        return self.in_state("trust.json")

    @property
    def asked(self) -> str:
        """What a session showed last for a yes, and the word for it."""
        return self.in_state("asked.json")

    @property
    def state_db(self) -> str:
        return self.in_state("state.db")

    @property
    def glance(self) -> str:
        return self.in_state("glance.json")

    @property
    def seen(self) -> str:
        return self.in_state("seen")

    @property
    def runner_lock(self) -> str:
        return self.in_state("runner.lock")

    @property
    def runner_sock(self) -> str:
        return self.in_state("runner.sock")

    @property
    def runner_log(self) -> str:
        return self.in_state("runner.log")

    @property
    def runner_env(self) -> str:
        """The user's: variables for the runner alone, such as a login's token. We only read it."""
        return self.in_state("runner.env")

    @property
    def service_launcher(self) -> str:
        """What the operating system's service starts."""
        return self.in_state("start-runner")

    @property
    def hooks_log(self) -> str:
        return self.in_state("hooks.log")

    @property
    def reports(self) -> str:
        return self.in_state("reports")

    def repository_lock(self, key: str) -> str:
        """The lock that serialises worktree operations of one repository; `key` is a digest of its common folder."""
        return os.path.join(self.state, "locks", f"repository-{key}.lock")

    @property
    def run_folders(self) -> str:
        return self.in_state("runs")

    def run_folder(self, run_id: str) -> str:
        """Scratch of one run (git trace events, settings for the client); gone when the run is over."""
        return os.path.join(self.run_folders, _checked(is_run_id(run_id), "run", run_id))

    def worktree(self, project_key: str, task_id: str, run_id: str) -> str:
        """The worktree of one run; `project_key` is `{name}-{hash8}` of the project."""
        _checked(is_task_id(task_id), "task", task_id)
        _checked(is_run_id(run_id), "run", run_id)
        return os.path.join(self.worktrees, project_key, f"{task_id}-{run_id[:8]}")


def config_file(project: str) -> str:
    return os.path.join(project, CONFIG_FOLDER, "config.json")


def rules_file(project: str) -> str:
    return os.path.join(project, CONFIG_FOLDER, "rules.md")


def logs_folder(project: str) -> str:
    return os.path.join(project, CONFIG_FOLDER, "logs")


def history_file(project: str) -> str:
    return os.path.join(logs_folder(project), "execution-history.jsonl")


def file_changes(project: str) -> str:
    return os.path.join(logs_folder(project), "file-changes.jsonl")


def task_log(project: str, task_id: str, *, error: bool = False) -> str:
    name = _checked(is_task_id(task_id), "task", task_id) + (".error.log" if error else ".log")
    return os.path.join(logs_folder(project), name)


def result_file(project: str, run_id: str) -> str:
    return os.path.join(logs_folder(project), "results", _checked(is_run_id(run_id), "run", run_id) + ".md")
