"""Runs beside others: the user at work in the main checkout, runs that reach into it, many runs at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import repos
from tests.repos import git
from tests.rig import Rig, rig, shell_task, wait_until
from tests.runs import branch_tree, branches, changed, discarded_tree, fingerprint, nothing_left


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


# The user at work


def _commit(root: Path) -> None:
    repos.commit(root, "meanwhile", {"file.txt": "the user's\n"})


def _switch(root: Path) -> None:
    git("checkout", "-q", "-b", "feature", cwd=root)
    _commit(root)


def _stash(root: Path) -> None:
    repos.write(root, {"file.txt": "half\n"})
    git("stash", cwd=root)


def _edit(root: Path) -> None:
    repos.write(root, {"file.txt": "half\n", "new.txt": "new\n"})
    git("add", "new.txt", cwd=root)


def _tidy(root: Path) -> None:
    git("branch", "-D", "other", cwd=root)
    git("tag", "v1", cwd=root)
    git("tag", "-d", "old", cwd=root)
    git("gc", "-q", cwd=root)


@pytest.mark.parametrize("meanwhile", [_commit, _switch, _stash, _edit, _tidy])
def test_a_user_at_work_costs_no_run_its_success(own: Rig, tmp_path: Path, meanwhile: Callable[[Path], None]) -> None:
    git("branch", "other", cwd=own.project)
    git("tag", "old", cwd=own.project)
    begun, go = tmp_path / "begun", tmp_path / "go"
    wait = f"touch {begun}; while ! test -e {go}; do sleep 0.02; done"
    own.enable(shell_task("job", f"{wait}; echo run > file.txt; git commit -qam mine; echo x > made"))
    own.start()
    run = own.run("job")
    wait_until(begun.exists)
    meanwhile(own.project)
    theirs = fingerprint(own.project)
    go.touch()
    record = own.record(run)

    assert record["status"] == "success", record
    notes = [note for note in record["notes"] if "it cannot be told by whom" in note]
    assert notes and len(notes) == len(set(notes)), record
    assert changed(theirs, fingerprint(own.project)) == set()
    assert branch_tree(own.project, record)["file.txt"][1] == b"run\n"
    assert git("merge-base", record["commit"], record["baseCommit"], cwd=own.project) == record["baseCommit"]
    nothing_left(own)


def test_what_the_user_left_uncommitted_stays_and_is_noted(own: Rig) -> None:
    repos.write(own.project, {"file.txt": "half\n", "staged.txt": "s\n", "loose.txt": "l\n"})
    git("add", "staged.txt", cwd=own.project)
    own.enable(shell_task("job", "echo run > file.txt; exit 1"), shell_task("good", "echo run > file.txt"))
    own.start()
    before = fingerprint(own.project)
    bad, good = own.run_to_end("job"), own.run_to_end("good")
    assert any("uncommitted changes" in note for note in good["notes"])
    assert (bad["status"], good["status"]) == ("failure", "success")
    assert "staged.txt" not in branch_tree(own.project, good)
    assert changed(before, fingerprint(own.project)) == set()


# A run that reaches into the main checkout


@pytest.mark.parametrize(
    "reach, told",
    [
        (
            "echo x > '{main}'/by-run && git -C '{main}' add -A && git -C '{main}' commit -q -m 'by the run'",
            ["branch main"],
        ),
        ("git -C '{main}' branch -D other", ["branch other is gone"]),
        ("cd '{main}' && git stash", ["the stash changed", "file file.txt"]),
        ("git -C '{main}' checkout -q other", ["HEAD changed"]),
        ("git -C '{main}' reset -q --hard", ["file file.txt changed"]),
        ("git -C '{main}' tag sneaky", ["tag sneaky appeared"]),
        ("git --git-dir='{main}/.git' --work-tree='{main}' rm -q --cached file.txt", ["file.txt in the index is gone"]),
        ("git branch -f other HEAD~1", ["branch other changed"]),
    ],
)
def test_a_run_that_changes_the_main_checkout_fails_with_the_list(own: Rig, reach: str, told: list[str]) -> None:
    """F22."""
    repos.commit(own.project, "more", {"more.txt": "1\n"})
    git("branch", "other", "HEAD~1", cwd=own.project)
    repos.write(own.project, {"file.txt": "half of the user's\n"})
    command = f"echo mine > made; git add made; git commit -q -m mine; {reach.format(main=own.project)}"
    own.enable(shell_task("job", command))
    own.start()
    record = own.run_to_end("job")

    assert (record["status"], record["reason"]) == ("failure", "containment"), record
    assert record["error"].startswith("the run changed the main checkout: ")
    assert all(words in record["error"] for words in told), record["error"]
    assert discarded_tree(own.project, record)["made"][1] == b"mine\n"
    assert branches(own.project) == []
    nothing_left(own)


def test_a_failed_run_that_also_reached_out_says_both(own: Rig) -> None:
    own.enable(
        shell_task("job", f"git -C {own.project} tag sneaky; exit 5"),
        shell_task("late", f"echo x > y; git -C {own.project} tag late", execution={"verify": "false"}),
    )
    own.start()
    for task, reason in (("job", "exit-code"), ("late", "verify-failed")):
        record = own.run_to_end(task)
        assert (record["status"], record["reason"]) == ("failure", reason)
        assert any("the run changed the main checkout: tag" in note for note in record["notes"]), record


def test_a_main_checkout_that_cannot_be_looked_at_is_the_runs_failure_and_no_bug(own: Rig, tmp_path: Path) -> None:
    own.enable(shell_task("job", "echo x > made"))
    own.start()
    index = own.project / ".git" / "index"
    kept = index.read_bytes()
    index.write_bytes(b"nonsense")
    record = own.run_to_end("job")
    assert record["status"] == "failure" and "index" in record["error"], record
    assert "bug" not in record["error"]
    index.write_bytes(kept)
    nothing_left(own)
    assert own.run_to_end("job")["status"] == "success"


# Eight at once

NAMES = 6
EIGHT = """
set -e
cd "$(git rev-parse --show-toplevel)"
for n in 0 1 2 3 4 5; do echo {me} > same-$n.txt; done
git rm -q shared-{me}.txt common.txt
mkdir -p folder && echo {me} > folder/same.txt
git add -A && git commit -q -m 'first of {me}'
touch {place}/at-{me}
while test "$(ls {place} | grep -c ^at-)" -lt {all}; do sleep 0.02; done
for n in 0 1 2 3 4 5; do test "$(cat same-$n.txt)" = {me}; done
test ! -e common.txt
test "$(ls shared-*.txt | wc -l)" = 7
echo '{me} again' > same-0.txt && rm same-5.txt && echo {me} > last.txt
"""


def _seed(root: Path) -> None:
    files = {f"shared-{me}.txt": f"{me}\n" for me in range(8)}
    repos.commit(root, "seed", {**files, "common.txt": "c\n", "same-1.txt": "seed\n"})


def _check_eight(root: Path, records: list[dict[str, Any]]) -> None:
    seen = set()
    for record in records:
        me = int(record["taskId"].removeprefix("job"))
        assert record["status"] == "success", record
        expected = {f"same-{n}.txt": f"{me}\n" for n in range(NAMES - 1)} | {
            "same-0.txt": f"{me} again\n",
            "folder/same.txt": f"{me}\n",
            "last.txt": f"{me}\n",
            **{f"shared-{other}.txt": f"{other}\n" for other in range(8) if other != me},
            "file.txt": "one\n",
            ".gitignore": "*.ignored\n",
        }
        assert {name: data.decode() for name, (_, data) in branch_tree(root, record).items()} == expected
        seen.add(record["commit"])
    assert len(seen) == len(records) == len(branches(root))


def test_eight_tasks_at_once_in_one_repository_never_see_each_other(own: Rig, tmp_path: Path) -> None:
    _seed(own.project)
    place = tmp_path / "place"
    place.mkdir()
    own.settings(maxConcurrent=8)
    own.enable(*[shell_task(f"job{me}", EIGHT.format(me=me, place=place, all=8)) for me in range(8)])
    own.start()
    before = fingerprint(own.project)
    runs = [own.run(f"job{me}") for me in range(8)]
    _check_eight(own.project, [own.record(run) for run in runs])
    assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)
    repos.works_for_its_user(own.project)


def test_two_clones_are_two_projects_that_never_see_each_other(own: Rig, tmp_path: Path) -> None:
    _seed(own.project)
    clone = tmp_path / "clone"
    git("clone", "-q", own.project, clone, cwd=tmp_path)
    git("config", "user.name", "Other Person", cwd=clone)
    git("config", "user.email", "other@example.invalid", cwd=clone)
    clone = Path(os.path.realpath(clone))
    place = tmp_path / "place"
    place.mkdir()
    own.settings(maxConcurrent=8)
    projects = (own.project, clone)
    tasks = [shell_task(f"job{me}", EIGHT.format(me=me, place=place, all=8)) for me in range(8)]
    own.enable(*tasks[:4])
    own.enable(*tasks[4:], project=clone)
    own.start()
    before = [fingerprint(root) for root in projects]
    runs = [own.run(f"job{me}", project=projects[me // 4]) for me in range(8)]
    records = [own.record(run) for run in runs]
    for at, root in enumerate(projects):
        _check_eight(root, records[4 * at : 4 * at + 4])
        assert changed(before[at], fingerprint(root)) == set()
        nothing_left(own, root)
    assert len({record["worktreePath"].split("/")[-2] for record in records}) == 2
