"""Real set-ups: real launcher, venv, pip and uv, in a cache of their own and mostly from one tiny local wheel."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
# What the scripts may use besides Python and git.
TOOLS = "sh find sort sha256sum shasum perl cp mv readlink git".split()
PATIENCE = 240

COMMAND_LINE = """\
import json, os, sys
import scheduler, tiny

def main():
    said = {"words": sys.argv[1:], "prefix": sys.prefix, "package": os.path.dirname(scheduler.__file__),
            "stdin": sys.stdin.read(), "tiny": tiny.WORD}
    print(json.dumps(said))
    return len(sys.argv) - 1
"""


def make_wheel(folder: Path, word: str) -> str:
    """A wheel `tiny 1.0` with `tiny.WORD`; returns its hash."""
    folder.mkdir(parents=True)
    wheel = folder / "tiny-1.0-py3-none-any.whl"
    files = {
        "tiny.py": f"WORD = {word!r}\n",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files["tiny-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in [*files, "tiny-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@dataclass
class Place:
    """A checkout with a stub command line, a home, and the only tools that its scripts can find."""

    root: Path
    home: Path
    tools: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "claude-scheduler"

    def started(self, *words: str, **changes: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "scripts" / "scheduler", *words],
            env={**self.env, **changes},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def call(self, *words: str, stdin: str = "", cwd: Path | None = None, **changes: str) -> Called:
        return call(self.root / "scripts" / "scheduler", *words, env={**self.env, **changes}, cwd=cwd, stdin=stdin)

    def runtime(self) -> list[str]:
        return (self.cache / "runtime").read_text().splitlines()

    def without(self, *names: str) -> None:
        for name in names:
            (self.tools / name).unlink(missing_ok=True)

    def program(self, name: str, text: str) -> None:
        self.without(name)
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)


@dataclass(frozen=True)
class Called:
    code: int
    out: str
    err: str

    @property
    def said(self) -> dict[str, object]:
        assert self.out, self.err
        return dict(json.loads(self.out))

    @property
    def error(self) -> tuple[str, str]:
        """The last two lines: what is wrong, what to do."""
        assert (self.code, self.out) == (1, ""), self
        wrong, todo = self.err.splitlines()[-2:]
        assert wrong.startswith("scheduler: ")
        assert todo.startswith("  ")
        return wrong, todo


def call(*command: str | Path, env: Mapping[str, str], cwd: Path | None = None, stdin: str = "") -> Called:
    done = subprocess.run(
        [str(part) for part in command],
        env=dict(env),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Called(done.returncode, done.stdout, done.stderr)


def make_checkout(root: Path, digest: str) -> Path:
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "requirements.lock").write_text(f"tiny==1.0 \\\n    --hash=sha256:{digest}\n")
    (root / "scheduler" / "cli").mkdir(parents=True)
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(ROOT / "scheduler" / name, root / "scheduler")
    (root / "scheduler" / "cli" / "__init__.py").touch()
    (root / "scheduler" / "cli" / "main.py").write_text(COMMAND_LINE)
    return root


@pytest.fixture
def place(tmp_path: Path) -> Place:
    home, tools = tmp_path / "hö me", tmp_path / "tools"
    home.mkdir()
    tools.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    (tools / "python3").symlink_to(BASE)
    digest = make_wheel(tmp_path / "wheels", "first")
    env = {
        "HOME": str(home),
        "PATH": str(tools),
        "LANG": "C.UTF-8",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "wheels"),
        "UV_OFFLINE": "1",
        "UV_FIND_LINKS": str(tmp_path / "wheels"),
    }
    return Place(make_checkout(tmp_path / "check out", digest), home, tools, env)


def wait_for(child: subprocess.Popen[str], words: str) -> str:
    """What the child said on standard error up to the line that holds the words."""
    assert child.stderr
    said = ""
    for line in child.stderr:
        said += line
        if words in line:
            return said
    raise AssertionError(f"{words!r} was never said: {said}")


def test_first_call_sets_up_and_output_is_the_commands(place: Place) -> None:
    first = place.call("a", "b  c", "", "*", stdin="typed\n")
    assert first.code == 4, first.err
    base, python, package, version = place.runtime()
    assert (first.said["words"], first.said["stdin"]) == (["a", "b  c", "", "*"], "typed\n")
    assert (first.said["package"], first.said["tiny"]) == (package, "first")
    assert Path(python).parent.parent == Path(str(first.said["prefix"]))
    assert (base, Path(package).parent.name.partition("-")[0]) == (str(BASE), version)
    assert re.search(r"^scheduler: \[ *\d+\.\d s\] installing the packages .* with pip$", first.err, re.MULTILINE)
    assert all(character.isprintable() or character == "\n" for character in first.err)
    assert (place.cache.stat().st_mode & 0o777) == 0o700

    second = place.call("again")
    assert (second.code, second.err) == (1, "")
    assert second.said["package"] == package


def test_everything_is_compiled_beforehand_and_never_written_again(place: Place) -> None:
    place.call()
    seen = {path: path.stat().st_mtime_ns for path in place.cache.rglob("*")}
    assert any(path.name.startswith("main.") and path.suffix == ".pyc" for path in seen)
    place.call()
    assert {path: path.stat().st_mtime_ns for path in place.cache.rglob("*")} == seen


def test_a_changed_source_gets_a_new_copy_and_a_changed_lock_a_new_environment(place: Place, tmp_path: Path) -> None:
    before = place.call().said
    with (place.root / "scheduler" / "cli" / "main.py").open("a") as source:
        source.write("# changed\n")
    changed = place.call().said
    assert changed["package"] != before["package"]
    assert changed["prefix"] == before["prefix"]
    assert Path(str(before["package"]), "__main__.py").exists()

    with (place.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    other = place.call().said
    assert other["prefix"] != before["prefix"]
    assert other["package"] == changed["package"]
    assert Path(str(before["prefix"]), "bin", "python").exists()


def test_what_was_used_last_is_on_record(place: Place, tmp_path: Path) -> None:
    first = place.call().said["package"]
    other = shutil.copytree(place.root, tmp_path / "other")
    (other / "scheduler" / "__init__.py").write_text('__version__ = "9.9.9"\n')
    second = call(other / "scripts" / "scheduler", env=place.env).said["package"]
    assert place.runtime()[2:] == [second, "9.9.9"]
    again = place.call()
    assert again.err == ""
    assert place.runtime()[2] == first


def test_the_bytecode_that_the_hooks_leave_makes_nothing_stale(place: Place) -> None:
    place.call()
    for folder in ("scheduler", "scheduler/cli"):
        (place.root / folder / "__pycache__").mkdir()
        (place.root / folder / "__pycache__" / "wire.cpython-311.pyc").write_bytes(b"x")
    assert place.call().err == ""
    assert len(list((place.cache / "ready").iterdir())) == 1


def test_through_a_link_from_another_folder(place: Place, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "one").symlink_to(place.root / "scripts" / "scheduler")
    (tmp_path / "links" / "two").symlink_to("one")
    assert call(tmp_path / "links" / "two", "x", env=place.env, cwd=tmp_path).said["words"] == ["x"]
    assert call("sh", "scheduler", "y", env=place.env, cwd=place.root / "scripts").said["words"] == ["y"]


def test_two_at_once_make_it_once(place: Place) -> None:
    children = [place.started("x"), place.started("x")]
    ended = [child.communicate(timeout=PATIENCE) for child in children]
    assert [child.returncode for child in children] == [1, 1], ended
    assert [json.loads(out)["tiny"] for out, _ in ended] == ["first", "first"]
    errors = "".join(err for _, err in ended)
    assert errors.count("making a virtual environment") == 1
    assert errors.count("waiting for another set-up") == 1


@pytest.mark.parametrize("survivor", ["nobody", "pip"])
def test_killed_in_the_middle_is_repaired_by_the_next_call(place: Place, survivor: str) -> None:
    child = place.started()
    wait_for(child, "installing the packages")
    if survivor == "nobody":
        os.killpg(child.pid, signal.SIGKILL)
    else:
        (setup,) = psutil.Process(child.pid).children()
        setup.kill()
    child.wait(PATIENCE)
    assert child.returncode != 0
    assert list(place.cache.glob("venvs/*"))
    assert not list(place.cache.glob("venvs/*/.complete"))
    for stream in (child.stdout, child.stderr):
        assert stream
        stream.close()

    repaired = place.call("x")
    assert repaired.said["tiny"] == "first"
    assert len(list(place.cache.glob("venvs/*/.complete"))) == 1


def test_a_removed_environment_is_made_again(place: Place) -> None:
    prefix = Path(str(place.call().said["prefix"]))
    shutil.rmtree(prefix)
    assert "making a virtual environment" in place.call().err
    assert place.call().err == ""


def test_a_package_that_was_lost_is_told_with_the_folder_whose_removal_repairs_it(place: Place) -> None:
    prefix = Path(str(place.call().said["prefix"]))
    (lost,) = prefix.glob("lib/python*/site-packages/tiny.py")
    shutil.rmtree(lost.parent / "__pycache__")
    lost.unlink()
    wrong, todo = place.call("list").error
    assert wrong == "scheduler: the Python package tiny is missing or damaged."
    assert todo == f"  Remove the folder {prefix}, then run the same command again: it makes it anew."
    shutil.rmtree(prefix)
    assert place.call().said["tiny"] == "first"


def test_uv_is_used_where_it_is(place: Place) -> None:
    (place.tools / "uv").symlink_to(Path(sysconfig.get_path("scripts"), "uv"))
    done = place.call()
    assert done.said["tiny"] == "first"
    assert "with uv" in done.err
    assert "with pip" not in done.err


def test_where_uv_fails_pip_does_it(place: Place) -> None:
    place.program("uv", "#!/bin/sh\nexit 1\n")
    done = place.call()
    assert done.said["tiny"] == "first"
    assert "uv could not" in done.err
    assert "with pip" in done.err


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_without_network(place: Place) -> None:
    unreachable = {
        "PIP_NO_INDEX": "0",
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": f"http://127.0.0.1:{closed_port()}/simple",
        "PIP_RETRIES": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    failed = place.call(**unreachable)
    wrong, todo = failed.error
    assert wrong == "scheduler: The packages could not be installed: the package index does not answer."
    assert str(place.cache / "setup.log") in todo
    assert "  | " in failed.err
    assert all(character.isprintable() or character == "\n" for character in failed.err)
    assert place.call().said["tiny"] == "first"


def test_a_package_with_another_hash_is_refused(place: Place, tmp_path: Path) -> None:
    make_wheel(tmp_path / "forged", "forged")
    wrong, _ = place.call(PIP_FIND_LINKS=str(tmp_path / "forged")).error
    assert wrong == "scheduler: The packages could not be installed: a download is not the locked one."


def test_python_too_old(place: Place) -> None:
    place.program("python3", "#!/bin/sh\necho 3 9 /usr/bin/python3.9\n")
    assert place.call().error[0] == "scheduler: Python 3.10 or newer is needed; python3 is Python 3.9."
    (place.tools / "python3.12").symlink_to(BASE)
    assert place.call().said["tiny"] == "first"


def test_no_python(place: Place) -> None:
    place.without("python3")
    assert place.call().error[0] == "scheduler: Python 3.10 or newer is needed; there is no python3 in PATH."


def test_no_git(place: Place) -> None:
    place.without("git")
    assert place.call().error == ("scheduler: git is not in PATH.", "  Install git, then run the same command again.")


def bare_python(folder: Path, *without: str) -> Path:
    """An interpreter that lacks parts of the library, as some distributions ship it, and every installed package."""
    library = Path(sysconfig.get_path("stdlib"))
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / library.name).mkdir(parents=True)
    for entry in library.iterdir():
        if entry.name not in ("site-packages", "dist-packages", *without):
            (folder / "lib" / library.name / entry.name).symlink_to(entry)
    for shared in library.parent.glob("libpython*"):
        (folder / "lib" / shared.name).symlink_to(shared)
    return Path(shutil.copy(BASE, folder / "bin" / "python3"))


def test_neither_pip_nor_ensurepip(place: Place, tmp_path: Path) -> None:
    place.without("python3")
    (place.tools / "python3").symlink_to(bare_python(tmp_path / "bare", "ensurepip"))
    wrong, todo = place.call().error
    assert "has neither pip nor ensurepip" in wrong
    assert "python3-venv" in todo


def test_ensurepip_alone_is_enough(place: Place, tmp_path: Path) -> None:
    place.without("python3")
    (place.tools / "python3").symlink_to(bare_python(tmp_path / "bare"))
    assert place.call().said["tiny"] == "first"


def test_no_home_and_a_cache_that_cannot_be_made(place: Place, tmp_path: Path) -> None:
    assert place.call(HOME="").error[0] == "scheduler: HOME is not set, so there is no place for the cache."
    (tmp_path / "file").touch()
    wrong, todo = place.call(XDG_CACHE_HOME=str(tmp_path / "file")).error
    assert wrong == f"scheduler: Not a directory: {tmp_path / 'file' / 'claude-scheduler'}"
    assert "XDG_CACHE_HOME" in todo


def test_the_cache_follows_xdg(place: Place, tmp_path: Path) -> None:
    said = place.call(XDG_CACHE_HOME=str(tmp_path / "elsewhere")).said
    assert Path(str(said["package"])).is_relative_to(tmp_path / "elsewhere" / "claude-scheduler")
    assert not place.cache.exists()


def test_interrupted_from_the_keyboard(place: Place) -> None:
    child = place.started()
    wait_for(child, "installing the packages")
    (setup,) = psutil.Process(child.pid).children()
    for process in [setup, *setup.children()]:
        process.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out) == (130, "")
    assert "scheduler: interrupted" in err


def test_the_real_lock_file_installs_and_imports(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path)}
    made = call(BASE, "-I", ROOT / "scripts" / "setup.py", "venv", ROOT / "requirements.lock", env=env)
    assert made.code == 0, made.err
    code = "import click, cron_descriptor, croniter, git, orjson, psutil, pydantic, rich, tzdata, tzlocal"
    done = call(made.out.strip(), "-I", "-c", code, env=os.environ)
    assert (done.code, done.err) == (0, "")
