"""Shell tasks through a real runner: what a run keeps, what it undoes without losing any of it, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import repos
from tests.repos import git
from tests.rig import Rig, rig, shell_task, wait_until
from tests.runs import (
    BRANCH,
    branch_tree,
    branches,
    changed,
    discarded_tree,
    fingerprint,
    nothing_left,
)

UNCOMMITTED = """
echo two >> file.txt
rm gone.txt
mkdir -p 'a folder' && echo neu > 'a folder/grün.txt'
printf '\\000\\377\\001' > binary.dat
printf '#!/bin/sh\\n' > tool && chmod +x tool
chmod +x script.sh
ln -s file.txt link
echo no > secret.ignored
"""
OWN_COMMITS = """
echo first > one.txt && git add -A && git commit -q -m 'one of its own'
echo second > two.txt && git rm -q gone.txt && git add -A && git commit -q -m 'two of its own'
"""
ALL_KINDS = f"""
set -e
{OWN_COMMITS}
{UNCOMMITTED.replace("rm gone.txt", "rm script.sh; echo x > script.sh; chmod +x script.sh")}
echo staged > staged.txt && git add staged.txt
git rm -q --cached two.txt
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        repos.commit(made.project, "more", {"gone.txt": "to be deleted\n", "script.sh": "#!/bin/sh\n"})
        yield made


def serve(own: Rig, *tasks: dict[str, Any]) -> dict[str, object]:
    """Enable the tasks, start the runner; the user's checkout as it is then."""
    own.enable(*tasks)
    own.start()
    return fingerprint(own.project)


def log_of(own: Rig, name: str) -> str:
    return (own.project / ".omc" / "scheduler" / "logs" / name).read_text()


@pytest.mark.parametrize("work", [UNCOMMITTED, OWN_COMMITS, OWN_COMMITS + "echo third > three.txt"])
def test_work_is_kept_on_a_branch_of_the_run(own: Rig, tmp_path: Path, work: str) -> None:
    copy = tmp_path / "copy"
    before = serve(own, shell_task("job", f"set -e\n{work}\ncp -a . {copy}"))
    record = own.run_to_end("job")

    assert (record["status"], record.get("reason")) == ("success", None), record
    named = BRANCH.match(record["worktreeBranch"])
    assert named and (named["task"], named["run8"]) == ("job", record["id"][:8])
    assert named["moment"] == record["startedAt"][:16].replace("-", "").replace(":", "")
    expected = {name: found for name, found in repos.contents(copy).items() if not name.endswith(".ignored")}
    assert branch_tree(own.project, record) == expected
    assert record["baseCommit"] == git("rev-parse", "HEAD", cwd=own.project)
    assert git("merge-base", "HEAD", record["commit"], cwd=own.project) == record["baseCommit"]
    numbers = git("diff", "--shortstat", record["baseCommit"], record["commit"], cwd=own.project)
    counts = (record["filesChanged"], record["insertions"], record["deletions"])
    assert [int(word) for word in numbers.split() if word.isdigit()] == [count for count in counts if count]
    assert branches(own.project) == [record["worktreeBranch"]]
    assert repos.discarded(own.project) == []
    assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)


def test_the_commit_names_task_and_run_and_is_the_users(own: Rig) -> None:
    serve(own, shell_task("job", "echo x > made", name="Nightly – wörk"))
    record = own.run_to_end("job")
    told = git("log", "-1", "--format=%an <%ae>%n%B", record["commit"], cwd=own.project).splitlines()
    assert told[:3] == ["Test Person <person@example.invalid>", "Nightly – wörk", ""]
    assert told[3:] == ["Task: job", f"Run: {record['id']}"]


def test_commits_of_its_own_stay_as_they_are(own: Rig) -> None:
    serve(own, shell_task("job", OWN_COMMITS))
    record = own.run_to_end("job")
    subjects = git("log", "--format=%s", f"{record['baseCommit']}..{record['commit']}", cwd=own.project)
    assert subjects.splitlines() == ["two of its own", "one of its own"]


@pytest.mark.parametrize("command", ["true", "echo hello", "echo x > y && rm y", "echo x > kept.ignored"])
def test_a_run_that_changes_nothing_leaves_nothing(own: Rig, command: str) -> None:
    before = serve(own, shell_task("job", command))
    record = own.run_to_end("job")
    assert (record["status"], record["reason"]) == ("success", "no-changes")
    assert not {"worktreeBranch", "commit", "notes", "error"} & record.keys(), record
    assert branches(own.project) == repos.discarded(own.project) == []
    assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)


ENDS = {
    "failure": ({}, "exit 7", ("failure", "exit-code")),
    "signal": ({}, "kill -9 $$", ("failure", "signal")),
    "timeout": ({"timeout": 2}, "sleep 60", ("timeout", None)),
    "stalled": ({"stallTimeout": 1}, "sleep 60", ("timeout", "stalled")),
    "cancelled": ({}, "sleep 60", ("failure", "cancelled")),
    "verify": ({"verify": "test -e never"}, "true", ("failure", "verify-failed")),
}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_ends_a_run_badly_all_its_work_is_kept_under_its_private_ref(
    own: Rig, tmp_path: Path, end: str
) -> None:
    fields, last, expected = ENDS[end]
    copy, ready = tmp_path / "copy", tmp_path / "ready"
    command = f"{ALL_KINDS}\ngit rev-parse HEAD > {tmp_path}/tip\ncp -a . {copy}\ntouch {ready}\n{last}"
    before = serve(own, shell_task("job", command, execution=fields))
    run = own.run("job")
    if end == "cancelled":
        wait_until(ready.exists)
        own.ask("cancel", runId=run)
    record = own.record(run)

    assert (record["status"], record.get("reason")) == expected, record
    assert record["error"]
    work = {name: found for name, found in repos.contents(copy).items() if not name.endswith(".ignored")}
    assert work["script.sh"][0] == "100755" and work["link"][0] == "120000" and len(work) > 8
    assert discarded_tree(own.project, record) == work
    tip = (tmp_path / "tip").read_text().strip()
    git("merge-base", "--is-ancestor", tip, record["discardedRef"], cwd=own.project)
    assert branches(own.project) == []
    assert "worktreeBranch" not in record and "commit" not in record
    assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)
    repos.works_for_its_user(own.project)
    assert discarded_tree(own.project, record) == work, "it does not survive `git gc`"


def test_a_failure_without_work_leaves_no_ref(own: Rig) -> None:
    before = serve(own, shell_task("job", "echo only words; exit 3"))
    record = own.run_to_end("job")
    assert (record["status"], record["reason"], record["exitCode"]) == ("failure", "exit-code", 3)
    assert "discardedRef" not in record
    assert repos.discarded(own.project) == branches(own.project) == []
    assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)


def test_what_a_task_says_goes_to_its_logs_and_to_the_record(own: Rig) -> None:
    said = "printf 'plain\\033[31m red\\033[0m\\a\\n'; printf 'no end'; echo trouble >&2; exit 1"
    serve(own, shell_task("job", said))
    record = own.run_to_end("job")
    out, errors = log_of(own, "job.log"), log_of(own, "job.error.log")
    stamp = rf"[{record['startedAt'][:10]}"
    assert all(line.startswith(stamp) and f"[{record['id'][:8]}]" in line for line in [*out.splitlines(), errors])
    assert "] plain red\n" in out and "] no end\n" in out and "\033" not in out
    assert f"end: failure (exit-code) at {record['completedAt']}" in out
    assert errors.endswith("] trouble\n") and "] trouble\n" not in out
    planted = "[REDACTED:known], [REDACTED:github-token]"
    assert record["output"].splitlines() == [planted, "plain red", "trouble", "no end"]
    for name in ("execution-history.jsonl", "job.log"):
        path = own.project / ".omc" / "scheduler" / "logs" / name
        assert git("status", "--porcelain", "--", str(path), cwd=own.project) == ""


def test_the_environment_of_a_run_is_built(own: Rig, tmp_path: Path) -> None:
    """E16."""
    own.env.update(SECRET_OF_THE_SESSION="x", CLAUDE_PLUGIN_ROOT="/x", CLAUDECODE="1", PASSED="yes")
    own.settings(envPass=["PASSED"])
    serve(
        own, shell_task("job", f"env > {tmp_path}/env; cat; pwd > {tmp_path}/cwd", execution={"env": {"OF_TASK": "1"}})
    )
    record = own.run_to_end("job")
    env = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert {name: env.get(name) for name in ("PASSED", "OF_TASK", "HOME")} == {
        "PASSED": "yes",
        "OF_TASK": "1",
        "HOME": str(own.home),
    }
    assert env["SCHEDULER_RUN_ID"] == record["id"]
    assert (env["SCHEDULER_TASK_ID"], env["SCHEDULER_PROJECT"]) == ("job", str(own.project))
    assert not {"SECRET_OF_THE_SESSION", "CLAUDE_PLUGIN_ROOT", "CLAUDECODE", "GIT_DIR"} & env.keys()
    assert (tmp_path / "cwd").read_text().strip() == record["worktreePath"]


def fake_client(folder: Path, script: str) -> Path:
    """A program that answers as a client would."""
    path = folder / "claude"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "message, status, reason",
    [('{"type":"tool_progress"}', "timeout", "stalled"), ('{"type":"user"}', "failure", "no-result")],
)
def test_a_client_whose_command_hangs_is_stalled_whatever_its_heart_does(
    own: Rig, tmp_path: Path, message: str, status: str, reason: str
) -> None:
    client = fake_client(tmp_path, f"for i in 1 2 3 4 5 6 7 8; do echo '{message}'; sleep 0.3; done")
    own.enable(
        shell_task("job", "work", execution={"type": "claude", "command": "work", "stallTimeout": 1}),
        client=str(client),
    )
    own.start()
    record = own.run_to_end("job")
    assert (record["status"], record["reason"]) == (status, reason), record


def test_a_client_that_is_gone_is_a_failure_that_says_what_to_do(own: Rig, tmp_path: Path) -> None:
    """E11."""
    own.enable(shell_task("job", "", execution={"type": "claude", "command": "work"}), client=str(tmp_path / "gone"))
    own.start()
    record = own.run_to_end("job")
    assert (record["status"], record["reason"]) == ("failure", "client-missing")
    assert "install it, then 'enable' again" in record["error"]
    assert "sessionId" not in record
    nothing_left(own)


# The steps around the agent


def test_setup_runs_first_and_links_and_copies_are_there(own: Rig, tmp_path: Path) -> None:
    (own.project / ".gitignore").write_text("*.ignored\nnode_modules/\n.env\n")
    repos.commit(own.project, "ignore", {".worktreeinclude": ".env\n"})
    repos.write(own.project, {"node_modules/left/pad.js": "1", ".env": "KEY=local\n", "other.ignored": "no"})
    before = serve(
        own,
        shell_task(
            "job",
            f"cp -RL . {tmp_path}/seen && echo made > by-setup.txt",
            worktree={"setup": "echo prepared > by-setup.txt && echo one >&2", "link": ["node_modules"]},
        ),
    )
    record = own.run_to_end("job")
    assert record["status"] == "success", record
    seen = repos.contents(tmp_path / "seen")
    assert seen["by-setup.txt"][1] == b"prepared\n"
    assert (seen["node_modules/left/pad.js"][1], seen[".env"][1]) == (b"1", b"KEY=local\n")
    assert "other.ignored" not in seen
    assert set(branch_tree(own.project, record)) == {*git("ls-files", cwd=own.project).splitlines(), "by-setup.txt"}
    assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)


def test_a_run_that_deletes_what_is_linked_in_deletes_the_link(own: Rig) -> None:
    (own.project / ".gitignore").write_text("node_modules/\n")
    repos.commit(own.project)
    repos.write(own.project, {"node_modules/kept.js": "1"})
    serve(own, shell_task("job", "rm -rf node_modules; exit 1", worktree={"link": ["node_modules"]}))
    own.run_to_end("job")
    nothing_left(own)
    assert (own.project / "node_modules" / "kept.js").exists()


def test_a_setup_that_fails_ends_the_run_before_its_task(own: Rig, tmp_path: Path) -> None:
    setup = {"setup": "echo half > half.txt; echo no network >&2; exit 9"}
    serve(own, shell_task("job", f"touch {tmp_path}/ran", worktree=setup))
    record = own.run_to_end("job")
    assert (record["status"], record["reason"], record["exitCode"]) == ("failure", "setup-failed", 9)
    assert record["error"].startswith("setup: ") and not (tmp_path / "ran").exists()
    assert discarded_tree(own.project, record)["half.txt"][1] == b"half\n"
    assert "no network" in log_of(own, "job.error.log")
    nothing_left(own)


@pytest.mark.parametrize(
    "precheck, status, reason",
    [
        ("test -e file.txt", "success", None),
        ("test -e absent", "skipped", "precheck-idle"),
        ("exit 2", "failure", "precheck-error"),
        ("kill -9 $$", "failure", "precheck-error"),
        ("no-such-program", "failure", "precheck-error"),
    ],
)
def test_precheck_decides_in_the_worktree(own: Rig, precheck: str, status: str, reason: str | None) -> None:
    before = serve(own, shell_task("job", "echo x > made", execution={"precheck": precheck}))
    record = own.run_to_end("job")
    assert (record["status"], record.get("reason")) == (status, reason), record
    assert len(branches(own.project)) == (status == "success")
    assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)


def test_verify_sees_the_committed_state(own: Rig, tmp_path: Path) -> None:
    verify = f"git status --porcelain > {tmp_path}/status && git show HEAD:made > {tmp_path}/made"
    serve(own, shell_task("job", "echo x > made", execution={"verify": verify}))
    assert own.run_to_end("job")["status"] == "success"
    assert (tmp_path / "status").read_text() == ""
    assert (tmp_path / "made").read_text() == "x\n"


def test_setup_task_and_verify_share_one_time_limit(own: Rig) -> None:
    serve(own, shell_task("job", "sleep 1.2; echo x > made", execution={"timeout": 2, "verify": "sleep 60"}))
    record = own.run_to_end("job")
    assert (record["status"], record.get("reason")) == ("timeout", None)
    assert record["duration"] < 10_000
    assert discarded_tree(own.project, record)["made"][1] == b"x\n"


# Push


def with_remote(own: Rig, tmp_path: Path) -> Path:
    bare = tmp_path / "remote.git"
    git("init", "-q", "--bare", bare, cwd=tmp_path)
    git("remote", "add", "origin", bare, cwd=own.project)
    git("push", "-q", "origin", "main", cwd=own.project)
    return bare


def test_push_sends_the_branch_of_a_success_and_nothing_else(own: Rig, tmp_path: Path) -> None:
    bare = with_remote(own, tmp_path)
    git("tag", "local", cwd=own.project)
    worktree = {"push": True}
    serve(
        own,
        shell_task("good", "echo x > made", worktree=worktree),
        shell_task("bad", "echo x > made; exit 1", worktree=worktree),
        shell_task("idle", "true", worktree=worktree),
        shell_task("unverified", "echo x > made", worktree=worktree, execution={"verify": "false"}),
    )
    assert own.run_to_end("bad")["status"] == own.run_to_end("unverified")["status"] == "failure"
    assert own.run_to_end("idle")["reason"] == "no-changes"
    record = own.run_to_end("good")
    assert record["worktreePushed"] is True
    refs = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=bare).splitlines()
    assert [ref for ref in refs if not ref.startswith("refs/heads/main ")] == [
        f"refs/heads/{record['worktreeBranch']} {record['commit']}"
    ]
    nothing_left(own)


@pytest.mark.parametrize("obstacle", ["refused", "unreachable", "unknown"])
def test_a_push_that_fails_is_on_record_and_keeps_the_branch(own: Rig, tmp_path: Path, obstacle: str) -> None:
    bare = with_remote(own, tmp_path)
    if obstacle == "refused":
        hook = bare / "hooks" / "pre-receive"
        hook.write_text("#!/bin/sh\necho protected >&2\nexit 1\n")
        hook.chmod(0o755)
    if obstacle == "unreachable":
        bare.rename(tmp_path / "elsewhere.git")
    remote = "nobody" if obstacle == "unknown" else "origin"
    serve(own, shell_task("job", "echo x > made", worktree={"push": True, "remoteName": remote}))
    record = own.run_to_end("job")
    assert (record["status"], record["worktreePushed"]) == ("success", False)
    assert any(note.startswith("not pushed, ") for note in record["notes"]), record
    assert branch_tree(own.project, record)["made"][1] == b"x\n"
    nothing_left(own)


# Without a worktree


def test_without_a_worktree_it_runs_in_the_main_checkout_alone(own: Rig, tmp_path: Path) -> None:
    own.settings(maxConcurrent=4)
    alone = f"mkdir {tmp_path}/busy && sleep 0.3 && echo x >> made && rmdir {tmp_path}/busy"
    off = {"enabled": False}
    own.enable(*[shell_task(f"job{i}", alone, worktree=off) for i in range(3)], shell_task("beside", "echo y > made"))
    own.start()
    runs = [own.run(f"job{i}") for i in range(3)]
    beside = own.run_to_end("beside")
    for run in runs:
        record = own.record(run)
        assert (record["status"], record["isolated"]) == ("success", False), record
        assert not {"worktreePath", "worktreeBranch", "baseCommit", "commit"} & record.keys()
    assert (beside["status"], beside["isolated"]) == ("success", True)
    assert (own.project / "made").read_text() == "x\n" * 3
    assert branches(own.project) == [beside["worktreeBranch"]]


def test_without_a_worktree_a_failure_undoes_nothing(own: Rig) -> None:
    serve(own, shell_task("job", "echo x > made; exit 4", worktree={"enabled": False}))
    record = own.run_to_end("job")
    assert (record["status"], record["reason"], record["isolated"]) == ("failure", "exit-code", False)
    assert (own.project / "made").exists()
    assert "discardedRef" not in record


# What an agent does to its own place


@pytest.mark.parametrize(
    "command",
    [
        "git checkout -q -b elsewhere && echo x > made",
        "git checkout -q --detach && echo x > made && git add -A && git commit -q -m detached",
        "echo x > made && git add -A && git commit -q -m mine && git checkout -q --orphan fresh",
    ],
)
def test_a_run_that_leaves_its_branch_fails_and_keeps_its_work(own: Rig, command: str) -> None:
    serve(own, shell_task("job", command))
    record = own.run_to_end("job")
    assert (record["status"], record["reason"]) == ("failure", "left-branch"), record
    assert "left its branch" in record["error"]
    made = [name for name in repos.branches(own.project) if name not in ("main", *branches(own.project))]
    assert all(f"branch {name} appeared" in str(record["notes"]) for name in made), record
    assert discarded_tree(own.project, record)["made"][1] == b"x\n"
    assert branches(own.project) == []
    nothing_left(own)


def test_a_worktree_that_cannot_be_removed_is_told_and_costs_nothing(own: Rig) -> None:
    serve(
        own, shell_task("good", "echo x > made"), shell_task("bad", "echo x > made; exit 1"), shell_task("idle", "true")
    )
    first = own.run_to_end("idle")
    nothing_left(own)
    trash = Path(first["worktreePath"]).parent / ".trash"
    trash.rmdir()
    trash.write_text("in the way")
    good, bad, idle = (own.run_to_end(task) for task in ("good", "bad", "idle"))
    assert (good["status"], bad["reason"], idle["reason"]) == ("success", "exit-code", "no-changes")
    assert branch_tree(own.project, good)["made"] == discarded_tree(own.project, bad)["made"]
    for record, words in ((good, "could not be removed"), (bad, "stays"), (idle, "could not be removed")):
        assert any(record["worktreePath"] in note and words in note for note in record["notes"]), record
    trash.unlink()
    assert own.run_to_end("good")["status"] == "success"


@pytest.mark.parametrize(
    "command, status",
    [
        ("rm -rf .git", "success"),
        ("echo nonsense > .git", "success"),
        ('rm -rf "$PWD"', "failure"),
        ('rm -rf "$(git rev-parse --git-dir)"', "failure"),
    ],
)
def test_a_run_that_destroys_its_worktree_loses_no_commit(own: Rig, command: str, status: str) -> None:
    before = serve(own, shell_task("job", f"{OWN_COMMITS}\n{command}"))
    record = own.run_to_end("job")
    assert record["status"] == status, record
    kept = branch_tree(own.project, record) if status == "success" else discarded_tree(own.project, record)
    assert {"one.txt", "two.txt"} <= kept.keys() and "gone.txt" not in kept
    assert len(branches(own.project)) == (status == "success")
    assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)
    repos.works_for_its_user(own.project)


def test_a_commit_that_a_hook_refuses_fails_the_run_and_keeps_its_work(own: Rig) -> None:
    repos.hook(own.project, "pre-commit", "echo no tabs please >&2; exit 1")
    serve(own, shell_task("job", "echo x > made"))
    record = own.run_to_end("job")
    assert (record["status"], record["reason"]) == ("failure", "commit-rejected")
    assert "no tabs please" in record["error"]
    assert discarded_tree(own.project, record)["made"][1] == b"x\n"
    nothing_left(own)


def test_what_a_hook_of_the_users_changes_is_part_of_the_commit(own: Rig) -> None:
    repos.hook(own.project, "pre-commit", "echo formatted > made; git add made")
    serve(own, shell_task("job", "echo x > made"))
    record = own.run_to_end("job")
    assert record["status"] == "success"
    assert branch_tree(own.project, record)["made"][1] == b"formatted\n"


def test_hooks_find_their_programs_where_they_did_at_enable(own: Rig, tmp_path: Path) -> None:
    """The runner may have been started by a service, whose PATH is short."""
    repos.write(tmp_path, {"tools/my-formatter": "#!/bin/sh\necho formatted > made; git add made\n"})
    (tmp_path / "tools" / "my-formatter").chmod(0o755)
    repos.hook(own.project, "pre-commit", "my-formatter")
    short = own.env["PATH"]
    own.env["PATH"] = f"{tmp_path}/tools:{short}"
    own.enable(shell_task("job", "echo x > made"))
    own.env["PATH"] = short
    own.start()
    record = own.run_to_end("job")
    assert record["status"] == "success", record
    assert branch_tree(own.project, record)["made"][1] == b"formatted\n"


def test_open_review_waits_for_the_branch_before(own: Rig) -> None:
    task = shell_task(
        "job", "date +%s%N > made", policy={"openReview": "skip"}, trigger={"type": "interval", "every": 1}
    )
    serve(own, task)
    skipped = wait_until(lambda: [r for r in own.task_records("job") if r.get("reason") == "open-review"])[0]
    assert skipped["status"] == "skipped" and skipped["completedAt"] and skipped["scheduledFor"]
    assert not {"worktreePath", "worktreeBranch", "baseCommit"} & skipped.keys()
    first = own.task_records("job")[0]
    assert [first["worktreeBranch"]] == branches(own.project)
    git("merge", "-q", "--ff-only", first["worktreeBranch"], cwd=own.project)
    wait_until(lambda: len([r for r in own.task_records("job") if r["status"] == "success"]) == 2)
