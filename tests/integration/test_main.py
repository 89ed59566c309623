"""`scheduler/__main__.py`, started in each way that the launcher, the runner and a person start it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "scheduler"
REPORT = """\
import json, sys

def main({arguments}):
    print(json.dumps({{"words": {words}, "path": sys.path[0], "modules": sorted(sys.modules)}}))
    return 5
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of this `__main__` and two stubs that tell how they were started."""
    package = tmp_path / "co de" / "scheduler"
    for room in ("cli", "execution", "runner", "core"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(PACKAGE / name, package)
    (package / "cli" / "main.py").write_text(REPORT.format(arguments="", words="sys.argv[1:]"))
    (package / "execution" / "supervise.py").write_text(REPORT.format(arguments="words", words="words"))
    (package / "runner" / "loop.py").write_text(REPORT.format(arguments="env", words="sorted(env)"))
    return package


def report(*command: str | Path, cwd: Path) -> dict[str, list[str]]:
    # Without the variable by which coverage follows children: the stubs' lines are not those of the real modules.
    env = {"LANG": "C.UTF-8"}
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (5, "")
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("start", [["-I", "."], ["-I", "__main__.py"], ["-I", "-S", "."], ["-I", "-S", "__main__.py"]])
def test_as_a_folder_and_as_a_file(package: Path, tmp_path: Path, start: list[str]) -> None:
    *options, last = start
    target = package if last == "." else package / last
    line = report(*options, target, "run", "a b", cwd=tmp_path)
    assert line["words"] == ["run", "a b"]
    assert line["path"] == str(package.parent)
    assert "scheduler.cli.main" in line["modules"]
    supervisor = report(*options, target, "supervise", "x", cwd=tmp_path)
    assert supervisor["words"] == ["x"]
    assert "LANG" in report(*options, target, "runner", cwd=tmp_path)["words"]
    assert not {"scheduler.cli.main", "json.tool", "asyncio", "subprocess"} & set(supervisor["modules"])


def test_as_a_module(package: Path) -> None:
    assert report("-m", "scheduler", "list", cwd=package.parent)["words"] == ["list"]
