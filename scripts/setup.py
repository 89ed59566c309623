"""Makes what scripts/scheduler starts and what scripts/test needs; standard library only, Python 3.10 or newer.

    setup.py ready FINGERPRINT     the virtual environment, the copy of the package, and the record of both
    setup.py venv LOCKFILE         the virtual environment of one lock file; prints its interpreter
    setup.py client [--oldest]     the real Claude Code client for the tests; prints its program

Everything lies in the cache: `venvs/KEY`, `code/VERSION-HASH`, `clients/HASH`. Each is made once, in place, and never
changed after its `.complete` marker is there; without the marker it is what an interrupted set-up left, and is made
anew. Progress goes to standard error, the tools' own words to `setup.log`. Exit 0 done, 1 could not, 130 interrupted.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPLETE = ".complete"
# What the log shows, what is wrong, what to do; the first that fits.
REASONS = (
    ("No space left|ENOSPC", "no space left", "Free some space where the cache is"),
    ("DO NOT MATCH THE HASHES|Hash mismatch|EINTEGRITY", "a download is not the locked one", "Find out who changes it"),
    (
        "NewConnectionError|ConnectionError|Connection refused|ConnectTimeout|Max retries|name resolution|timed out"
        "|Network is unreachable|ProxyError|SSLError|error sending request|tcp connect error|dns error"
        "|ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT",
        "the package index does not answer",
        "Check the network, and the proxy and index settings of pip, uv or npm",
    ),
    ("", "see the lines above", "Put right what they say"),
)


class SetupError(Exception):
    """What is wrong, and what to do about it: one line each."""

    def __init__(self, wrong: str, todo: str) -> None:
        super().__init__(wrong)
        self.todo = todo


class Workshop:
    """The cache folder during one set-up: the lock, the clock, the log and the children that hold the lock too."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.log = cache / "setup.log"
        self.started = time.monotonic()
        self.lock = -1

    def say(self, text: str) -> None:
        print(f"scheduler: [{time.monotonic() - self.started:5.1f} s] {text}", file=sys.stderr, flush=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One set-up at a time. Children inherit the lock: what a killed set-up left running still holds it."""
        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock = os.open(self.cache / "setup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say("waiting for another set-up that is at work")
                fcntl.flock(self.lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(self.lock)

    def run(self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path | None = None) -> bool:
        """Whether the command ended well. Its output is added to the log."""
        with self.log.open("ab") as log, open(os.devnull, "rb") as nothing:
            log.write(f"$ {' '.join(map(str, command))}\n".encode(errors="replace"))
            log.flush()
            # In the cache: a project's own configuration of uv or npm is none of our business.
            place, words, held = cwd or self.cache, list(map(str, command)), (self.lock,)
            done = subprocess.run(words, cwd=place, env=env, stdin=nothing, stdout=log, stderr=log, pass_fds=held)
        return done.returncode == 0

    def failure(self, what: str) -> SetupError:
        """The error that fits the log, after its last lines have been shown."""
        text = self.log.read_text(errors="replace")
        for line in text.splitlines()[-15:]:
            print(f"  | {''.join(c if c.isprintable() else ' ' for c in line)}", file=sys.stderr)
        wrong, todo = next((wrong, todo) for seen, wrong, todo in REASONS if re.search(seen, text, re.IGNORECASE))
        again = f"then run the same command again ({self.log} has the whole output)."
        return SetupError(f"{what}: {wrong}.", f"{todo}, {again}")


@contextmanager
def made_once(folder: Path) -> Iterator[None]:
    """An empty folder to make something in; marked as complete when the block ends well."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    yield
    (folder / COMPLETE).touch()


def cache_folder(env: Mapping[str, str]) -> Path:
    """`XDG_CACHE_HOME`, else `.cache` below HOME (or `SCHEDULER_HOME`), as in scripts/scheduler."""
    cache = env.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        home = env.get("HOME") or env.get("SCHEDULER_HOME") or ""
        if not os.path.isabs(home):
            raise SetupError("HOME is not set, so there is no place for the cache.", "Set HOME to your home folder.")
        cache = os.path.join(home, ".cache")
    return Path(cache, "claude-scheduler")


def base_interpreter() -> str:
    """The real file of the running interpreter, outside any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def venv_folder(cache: Path, lock: bytes) -> Path:
    """Where the environment of a lock file and this interpreter lies."""
    tag = f"{sys.implementation.cache_tag} {sysconfig.get_platform()} {base_interpreter()}"
    return cache / "venvs" / hashlib.sha256(lock + tag.encode()).hexdigest()[:16]


def tool_environment() -> dict[str, str]:
    """Ours, with the person's index and proxy settings, without what would send packages to another place."""
    away = {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "VIRTUAL_ENV", "UV_PYTHON", "UV_SYSTEM_PYTHON"}
    env = {name: value for name, value in os.environ.items() if name not in away and not name.startswith("PYTHON")}
    return {**env, "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def ensure_venv(shop: Workshop, lockfile: Path) -> Path:
    """The interpreter of the environment that holds exactly what the lock file names."""
    folder = venv_folder(shop.cache, lockfile.read_bytes())
    python = folder / "bin" / "python"
    if not ((folder / COMPLETE).exists() and os.access(python, os.X_OK)):
        with made_once(folder):
            shop.say(f"making a virtual environment (Python {sys.version.split()[0]}) in {folder}")
            if not (install_with_uv(shop, folder, lockfile) or install_with_pip(shop, folder, lockfile)):
                raise shop.failure("The packages could not be installed")
    return python


def install_with_uv(shop: Workshop, folder: Path, lockfile: Path) -> bool:
    """Whether uv is here and did it."""
    uv = shutil.which("uv")
    if not uv:
        return False
    env = tool_environment()
    shop.say(f"installing the packages of {lockfile.name} with uv")
    make: list[str | Path] = [uv, "venv", "--allow-existing", "--no-project", "--python", base_interpreter(), folder]
    fill = [uv, "pip", "install", "--require-hashes", "--no-deps", "--compile-bytecode"]
    if shop.run(make, env) and shop.run([*fill, "--python", folder / "bin" / "python", "-r", lockfile], env):
        return True
    shop.say("uv could not")
    return False


def install_with_pip(shop: Workshop, folder: Path, lockfile: Path) -> bool:
    """Whether pip did it: the interpreter's own (from 22.3 it can serve another environment), else ensurepip's."""
    env, base, python = tool_environment(), base_interpreter(), folder / "bin" / "python"
    own = own_pip()
    if not own and not importlib.util.find_spec("ensurepip"):
        raise SetupError(
            f"{base} has neither pip nor ensurepip, so nothing can be installed.",
            "Install uv, or pip for this Python (Debian, Ubuntu: apt install python3-venv), then run it again.",
        )
    shop.say(f"installing the packages of {lockfile.name} with pip")
    made = shop.run([base, "-I", "-m", "venv", "--clear", *(["--without-pip"] if own else []), str(folder)], env)
    pip: list[str | Path] = [base, "-I", "-m", "pip", "--python", python] if own else [python, "-I", "-m", "pip"]
    fill = [*pip, "install", "--require-hashes", "--no-deps", "-r", lockfile]
    return made and shop.run(fill, env)


def own_pip() -> bool:
    """Whether this interpreter's pip is new enough for `--python`."""
    try:
        return tuple(map(int, importlib.metadata.version("pip").split(".")[:2])) >= (22, 3)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def ensure_code(shop: Workshop) -> tuple[Path, str]:
    """The copy of the package under its content's hash, and its version."""
    source = ROOT / "scheduler"
    files = {
        path.relative_to(source): path.read_bytes()
        for path in sorted(source.rglob("*"))
        if path.is_file() and not any(p.startswith(".") or p == "__pycache__" for p in path.relative_to(source).parts)
    }
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    found = re.search(r'^__version__ = "([^"]+)"', files[Path("__init__.py")].decode(), re.MULTILINE)
    version = found.group(1) if found else "0"
    folder = shop.cache / "code" / f"{version}-{digest.hexdigest()[:16]}"
    if not (folder / COMPLETE).exists():
        shop.say(f"copying the package to {folder}")
        with made_once(folder):
            for name, content in files.items():
                (folder / "scheduler" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "scheduler" / name).write_bytes(content)
    return folder / "scheduler", version


def write_whole(path: Path, text: str) -> None:
    """Replace the file at once, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    with beside.open("w", encoding=sys.getfilesystemencoding(), errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def make_ready(shop: Workshop, fingerprint: str) -> None:
    """Everything that scripts/scheduler starts; the record under the fingerprint comes last."""
    if not shutil.which("git"):
        raise SetupError("git is not in PATH.", "Install git, then run the same command again.")
    if not (shop.cache / "venvs").exists():
        shop.say(f"first start: making ready in {shop.cache}")
    python = ensure_venv(shop, ROOT / "requirements.lock")
    package, version = ensure_code(shop)
    compile_all = "-I -m compileall -q --invalidation-mode unchecked-hash".split()
    if not shop.run([python, *compile_all, package], tool_environment()):
        raise shop.failure("The package does not compile")
    record = f"{base_interpreter()}\n{python}\n{package}\n{version}\n"
    write_whole(shop.cache / "runtime", record)
    write_whole(shop.cache / "ready" / fingerprint, record)
    shop.say("ready")


def ensure_client(shop: Workshop, oldest: bool) -> Path:
    """The program of the real client, from tests/npm by npm; the oldest is a development dependency there."""
    names = [ROOT / "tests" / "npm" / name for name in ("package.json", "package-lock.json")]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in names) + str(oldest).encode()).hexdigest()[:16]
    folder = shop.cache / "clients" / key
    package = "claude-code-oldest" if oldest else "@anthropic-ai/claude-code"
    program = folder / "node_modules" / package / "bin" / "claude.exe"
    if not (folder / COMPLETE).exists():
        npm = shutil.which("npm")
        if not npm:
            raise SetupError("npm is not in PATH, so the real client cannot be installed.", "Install Node.js with npm.")
        shop.say(f"installing the real client with npm in {folder}")
        with made_once(folder):
            for path in names:
                shutil.copy(path, folder)
            env = tool_environment()
            install = [npm, "ci", "--no-audit", "--no-fund", *([] if oldest else ["--omit=dev"])]
            if not (shop.run(install, env, folder) and shop.run([program, "--version"], {**env, "HOME": str(folder)})):
                raise shop.failure("The real client could not be installed")
    return program


def carry_out(shop: Workshop, words: Sequence[str]) -> None:
    """One verb, under the lock."""
    with shop.locked():
        shop.log.write_bytes(b"")
        match words:
            case ["ready", fingerprint]:
                make_ready(shop, fingerprint)
            case ["venv", lockfile]:
                print(ensure_venv(shop, Path(lockfile).resolve()))
            case ["client", *rest]:
                print(ensure_client(shop, rest == ["--oldest"]))
            case _:
                raise SetupError(f"unknown words: {' '.join(words)}", "See the top of scripts/setup.py.")


def main(words: Sequence[str]) -> int:
    """Carry out one verb and return the exit code."""
    try:
        carry_out(Workshop(cache_folder(os.environ)), words)
    except SetupError as error:
        print(f"scheduler: {error}\n  {error.todo}", file=sys.stderr)
        return 1
    except OSError as error:
        todo = "Free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Make that place writable"
        print(f"scheduler: {error.strerror}: {error.filename}", file=sys.stderr)
        print(f"  {todo}, or set XDG_CACHE_HOME to another folder, then run the same command again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("scheduler: interrupted; the next call starts over where it must.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
