"""The rules of the house that neither ruff nor import-linter can hold."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "scheduler").rglob("*.py"))

MODULE_LIMIT = 300
FUNCTION_LIMIT = 50

# The one module, or the one room, that may import each package.
HOMES = {
    "click": "scheduler.cli",
    "cron_descriptor": "scheduler.cli.output",
    "croniter": "scheduler.core.cron",
    "git": "scheduler.execution.git",
    "orjson": "scheduler.store.history",
    "psutil": "scheduler.execution.process",
    "pydantic": "scheduler.core",
    "rich": "scheduler.cli.output",
    "tzlocal": "scheduler.cli",
}
# Imported under another name than the one in pyproject.toml; tzdata is data that zoneinfo finds by itself.
IMPORT_NAMES = {"gitpython": "git", "cron-descriptor": "cron_descriptor"}
DATA_ONLY = {"tzdata"}

LOCKS = ("requirements.lock", "requirements-dev.lock")
HOOK_SAFE = ("scheduler.errors", "scheduler.disk", "scheduler.hooks")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, place: str) -> bool:
    return module == place or module.startswith(place + ".")


def imports_of(path: Path) -> Iterator[str]:
    """Every module that is imported anywhere in the file, also in functions; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))


def foreign(path: Path) -> set[str]:
    tops = {name.partition(".")[0] for name in imports_of(path)}
    return tops - set(sys.stdlib_module_names) - {"scheduler", "__future__"}


def ours(path: Path) -> set[Path]:
    files = {name_of(module): module for module in MODULES}
    return {files[name] for name in imports_of(path) if name in files}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LIMIT
    long = {
        f"{node.name} at line {node.lineno}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and int(node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LIMIT
    }
    assert not long


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_third_party_packages_stay_at_home(path: Path) -> None:
    strangers = {name for name in foreign(path) if not within(name_of(path), HOMES.get(name, "no home is known"))}
    assert not strangers


def test_every_dependency_is_declared_and_used() -> None:
    declared = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert declared
    names = {name.lower() for name in re.findall(r'"([A-Za-z0-9_-]+)', declared.group(1))} - DATA_ONLY
    assert {IMPORT_NAMES.get(name, name) for name in names} == set(HOMES)
    assert set().union(*map(foreign, MODULES)) == set(HOMES)


@pytest.mark.parametrize("path", [m for m in MODULES if any(within(name_of(m), s) for s in HOOK_SAFE)], ids=name_of)
def test_hook_safe_modules_parse_as_python_39_and_import_only_the_standard_library(path: Path) -> None:
    ast.parse(path.read_text(), str(path), feature_version=(3, 9))
    assert not foreign(path)


def test_the_supervisor_needs_only_the_standard_library() -> None:
    todo = [ROOT / "scheduler" / "execution" / "supervise.py"]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += ours(path)
    assert not {name_of(path): foreign(path) for path in seen if foreign(path)}


def test_the_launcher_sees_every_file_of_the_package() -> None:
    files = [path.relative_to(ROOT) for path in (ROOT / "scheduler").rglob("*") if "__pycache__" not in path.parts]
    assert [path for path in files if (ROOT / path).is_file() and ("." not in path.name or len(path.parts) > 4)] == []


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_pin_by_hash_and_name_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert "--index" not in text
    entries = re.split(r"\n(?=[A-Za-z])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    assert len(entries) > 15
    assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_lock_files_hold_what_is_declared() -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    for pattern, name in ((r"^dependencies = \[(.*?)^\]", LOCKS[0]), (r"^dev = \[(.*?)^\]", LOCKS[1])):
        found = re.search(pattern, declared, re.MULTILINE | re.DOTALL)
        assert found
        locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / name).read_text(), re.MULTILINE))
        assert {entry.lower() for entry in re.findall(r'"([A-Za-z0-9_-]+)', found.group(1))} <= locked


def test_development_installs_the_same_versions_as_the_plugin() -> None:
    pins = [set(re.findall(r"^[a-z].*==.*$", (ROOT / name).read_text(), re.MULTILINE)) for name in LOCKS]
    assert pins[0] <= pins[1]
