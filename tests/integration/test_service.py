"""The service under a real systemd: installed, killed, stopped, updated, taken away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler import __version__
from scheduler.core.units import Installed, launcher
from scheduler.errors import SchedulerError
from scheduler.runner import control, service
from tests import manager as managers
from tests.command import PACKAGE, Command
from tests.plugin import copy_plugin
from tests.rig import Rig, rig, shell_task, wait_until

NEWER = "0.1.1"


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def systemd(tmp_path: Path, living: Rig) -> Iterator[managers.Manager]:
    why = managers.why_not()
    if why:
        pytest.skip(f"no systemd of the test's own: {why}")
    with managers.manager(tmp_path, living.env) as made:
        yield made


@pytest.fixture
def cli(living: Rig, systemd: managers.Manager) -> Command:
    return Inside(living.project, systemd)


class Inside(Command):
    """Calls `scheduler VERB …` where the manager is."""

    def __init__(self, folder: Path, systemd: managers.Manager) -> None:
        super().__init__(folder, systemd.env)
        self.program = [*systemd.prefix, *self.program]


def unit(living: Rig) -> str:
    return service.Systemd(living.paths, living.env).unit


def status(living: Rig) -> dict[str, Any]:
    found = control.request(living.paths, {"verb": "status"})
    assert found is not None
    return found


def by_service(living: Rig) -> dict[str, Any] | None:
    found = control.request(living.paths, {"verb": "status"})
    return found if found is not None and found["startedBy"] == "service" else None


def test_the_service_from_install_to_uninstall(cli: Command, living: Rig, systemd: managers.Manager) -> None:
    living.enable(shell_task("touch", "echo done >new"))
    before = set(Path(living.home).rglob("*"))
    told = cli("service", "status").out
    assert told.startswith("no service is installed (systemd)")

    first = cli("service", "install", "--json").json
    assert (first["installed"], first["changed"], first["active"], first["enabled"]) == (True, True, True, True)
    assert first["runner"] == {"pid": status(living)["pid"], "version": status(living)["version"], "byService": True}
    assert living.run_to_end("touch")["status"] == "success"
    main_pid = systemd.systemctl("show", "--property=MainPID", "--value", unit(living))
    assert main_pid == str(first["runner"]["pid"])

    own = Path(living.paths.runner_env)
    own.write_text("ANTHROPIC_API_KEY=k\n")
    own.chmod(0o600)
    secrets = {"CLAUDE_CODE_OAUTH_TOKEN": "a-token", "ANTHROPIC_API_KEY": "a-key"}
    again = cli("service", "install", "--json", **secrets).json
    assert (again["changed"], again["runner"]) == (False, first["runner"])
    assert again["notGiven"] == ["CLAUDE_CODE_OAUTH_TOKEN"], "not what the user gives it in another way"
    assert b"a-token" not in Path(living.paths.service_launcher).read_bytes()
    own.unlink()

    os.kill(first["runner"]["pid"], signal.SIGKILL)
    second = wait_until(lambda: by_service(living), what="for the service to start the killed runner again")
    assert second["pid"] != first["runner"]["pid"]

    assert cli("stop", "--json").json == {"stopped": True}
    assert systemd.systemctl("is-active", unit(living)).startswith("inactive")
    assert "it is not running" in cli("service", "status").out
    assert cli("start", "--json").json["pid"] == status(living)["pid"]
    assert by_service(living), "who starts a runner where the service is installed has the service start it"
    restarted = cli("restart", "--json").json["pid"]
    assert by_service(living) and status(living)["pid"] == restarted

    assert cli("service", "uninstall", "--json").json == {"uninstalled": True, "problem": None}
    assert control.request(living.paths, {"verb": "status"}) is None
    assert {path for path in set(Path(living.home).rglob("*")) - before if not path.is_dir()} == set()
    assert not os.path.exists(living.paths.service_launcher)
    assert systemd.systemctl("is-enabled", unit(living)).endswith("[1]")
    assert cli("service", "uninstall").out == "no service was installed\n"


def test_it_takes_over_from_a_runner_that_was_started_by_hand(cli: Command, living: Rig, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    living.enable(shell_task("slow", f"until [ -e {gate} ]; do sleep 0.05; done; echo x >new"))
    old = living.start()
    run = living.run("slow")
    wait_until(lambda: living.ask("status")["running"])
    said = cli("service", "install")
    assert f"the runner that was there (pid {old}) ends with its 1 run" in said.err
    assert status(living)["pid"] == old
    gate.touch()
    assert living.record(run)["status"] == "success"
    taken = wait_until(lambda: by_service(living), what="for the service to take over")
    assert taken["pid"] != old
    cli("service", "uninstall")


@pytest.mark.full
def test_a_stop_by_the_system_cancels_what_runs_too_long_and_keeps_its_work(
    cli: Command, living: Rig, systemd: managers.Manager
) -> None:
    living.enable(shell_task("endless", "echo work >new; sleep 600"))
    cli("service", "install")
    run = living.run("endless")
    wait_until(lambda: list(Path(living.paths.worktrees).glob("*/*/new")))
    systemd.systemctl("stop", unit(living))
    record = living.record(run)
    assert (record["status"], record["reason"]) == ("failure", "cancelled")
    assert living.git("show", f"{record['discardedRef']}:new", cwd=living.project) == "work\n"


@pytest.mark.full
def test_an_update_and_the_removal_of_the_plugins_folder(tmp_path: Path) -> None:
    """The service goes on when the folder it was installed from is gone, and starts the new version after an update."""
    why = managers.why_not()
    if why:
        pytest.skip(f"no systemd of the test's own: {why}")
    with (
        rig(tmp_path, {"XDG_CACHE_HOME": str(tmp_path / "cache")}) as living,
        managers.manager(tmp_path, living.env) as systemd,
    ):
        living.enable(shell_task("work", "echo x >new"))
        old, new = copy_plugin(tmp_path / "old version"), copy_plugin(tmp_path / "new version")
        init = new / "scheduler" / "__init__.py"
        init.write_text(init.read_text().replace(__version__, NEWER))
        cli = Inside(living.project, systemd)
        cli.program = [*systemd.prefix, str(old / "scripts" / "scheduler")]
        first = cli("service", "install", "--json").json["runner"]
        assert (first["version"], first["byService"]) == (__version__, True)
        launcher_before = Path(living.paths.service_launcher).read_bytes()
        shutil.rmtree(old)
        os.kill(first["pid"], signal.SIGKILL)
        again = wait_until(lambda: by_service(living), what="for the service without the plugin's folder")
        assert (again["version"], again["pid"] == first["pid"]) == (__version__, False)
        cli.program[-1] = str(new / "scripts" / "scheduler")
        cli("restart")  # what the hook of SessionStart calls when the plugin is newer
        updated = by_service(living)
        assert updated is not None and updated["version"] == NEWER
        assert living.run_to_end("work")["runner"]["version"] == NEWER
        assert Path(living.paths.service_launcher).read_bytes() == launcher_before
        assert cli("service", "status", "--json").json["current"] is True
        cli("service", "uninstall")


def test_without_a_manager_it_says_what_to_do_and_leaves_nothing(living: Rig) -> None:
    cli = Command(living.project, {**living.env, "XDG_RUNTIME_DIR": str(living.home)})
    said = cli("service", "install", code=1)
    assert "systemd does not answer" in said.err and "@reboot of cron" in said.err
    assert not os.path.exists(service.of(living.paths, living.env).file)
    assert not os.path.exists(living.paths.service_launcher)
    told = cli("service", "status", "--json").json
    assert (told["installed"], told["active"], told["runner"]) == (False, None, None) and told["problem"]


def test_without_a_manager_uninstall_removes_the_files_all_the_same(living: Rig) -> None:
    mine = service.Systemd(living.paths, living.env)
    mine.write(service.launcher(living.paths, living.env, ())[0])
    wants = Path(living.paths.systemd_units, "default.target.wants", mine.unit)
    wants.parent.mkdir()
    wants.symlink_to(mine.file)
    cli = Command(living.project, {**living.env, "XDG_RUNTIME_DIR": str(living.home)})
    assert "could not be told" in cli("service", "uninstall").err
    assert not mine.installed and not wants.is_symlink() and not os.path.exists(living.paths.service_launcher)


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_it_is_refused_inside_a_run(living: Rig, verb: str) -> None:
    cli = Command(living.project, living.env)
    said = cli("service", verb, code=1, SCHEDULER_RUN_ID="x")
    assert f"'service {verb}' is refused inside a scheduled run" in said.err
    cli("service", "status", SCHEDULER_RUN_ID="x")


def test_a_runner_starts_by_itself_where_the_manager_does_not_answer(living: Rig) -> None:
    mine = service.Systemd(living.paths, living.env)
    mine.write(service.launcher(living.paths, living.env, ())[0])
    living.env["XDG_RUNTIME_DIR"] = str(living.home)
    living.start()
    assert status(living)["startedBy"] is None
    assert "the service could not be asked to start the runner" in living.log()


def test_the_launcher_starts_what_the_last_set_up_wrote_down(living: Rig, tmp_path: Path) -> None:
    """An update: the file that names the program is replaced, and the launcher, which never changes, starts the new."""
    file = tmp_path / "runtime"
    new = tmp_path / "a new version" / "scheduler"
    new.mkdir(parents=True)
    (new / "__main__.py").write_text("import sys; print('new', sys.argv[1:], flush=True)")
    script = tmp_path / "start"
    script.write_bytes(launcher({"PATH": living.env["PATH"]}, str(tmp_path / "log"), str(file)))
    with subprocess.Popen(["/bin/sh", script]) as child:
        log = tmp_path / "log"
        wait_until(lambda: log.exists() and "names no program" in log.read_text())
        child.terminate()
    assert child.returncode == -signal.SIGTERM
    file.write_text(f"base\n{sys.executable}\n{new}\n9.9.9\n")
    subprocess.run(["/bin/sh", script], check=True)
    assert (tmp_path / "log").read_text().splitlines()[-1] == "new ['runner']"


def start_by_exec_line(living: Rig) -> subprocess.Popen[bytes]:
    """Start what the unit's ExecStart names, with hardly any environment, as systemd does."""
    Path(living.paths.state).mkdir(parents=True, exist_ok=True)
    environment = {name: living.env[name] for name in ("HOME", "PATH", "SCHEDULER_HOME")}
    program = Installed(sys.executable, str(PACKAGE))
    Path(living.paths.service_launcher).write_bytes(launcher(environment, living.paths.runner_log, program))
    line = next(one for one in service.Systemd(living.paths, living.env).text().decode().splitlines() if "Exec" in one)
    assert line == f'ExecStart=/bin/sh "{living.paths.service_launcher}"'
    child = subprocess.Popen(["/bin/sh", living.paths.service_launcher], env={"HOME": living.env["HOME"]})
    wait_until(lambda: control.request(living.paths, {"verb": "status"}), what=f"for {line}")
    return child


def test_the_exec_line_by_itself_is_one_runner_that_ends_when_it_is_told_to(living: Rig) -> None:
    living.enable(shell_task("touch", "echo done >new"))
    with start_by_exec_line(living) as child:
        assert status(living)["pid"] == child.pid, "the launcher becomes the runner: the service knows its pid"
        assert living.run_to_end("touch")["status"] == "success"
        child.send_signal(signal.SIGTERM)
    assert child.returncode == 0, "on-failure does not start it again"


def test_a_second_one_of_the_service_waits_and_takes_over(living: Rig) -> None:
    first = start_by_exec_line(living)
    second = subprocess.Popen(["/bin/sh", living.paths.service_launcher], env={"HOME": living.env["HOME"]})
    wait_until(lambda: "waits for its end" in living.log())
    first.kill()
    first.wait()
    wait_until(lambda: (control.request(living.paths, {"verb": "status"}) or {}).get("pid") == second.pid)
    second.terminate()
    assert second.wait(30) == 0


def test_the_runner_has_what_the_users_own_file_says(living: Rig) -> None:
    living.settings(envPass=["MY_TOKEN"])
    own = Path(living.paths.runner_env)
    own.write_text("# mine\nexport MY_TOKEN='of the file'\n")
    own.chmod(0o600)
    living.enable(shell_task("tell", 'printf %s "${#MY_TOKEN}" >new'))
    living.start()
    record = living.run_to_end("tell")
    assert living.git("show", f"{record['commit']}:new", cwd=living.project) == str(len("of the file"))


def test_a_file_that_others_can_read_is_not_used(living: Rig) -> None:
    Path(living.paths.state).mkdir(parents=True)
    own = Path(living.paths.runner_env)
    own.write_text("A=b\n")
    own.chmod(0o644)
    living.start()
    assert "can be read by others (mode 644), so it is not used; run: chmod 600" in living.log()


LAUNCHCTL = """#!/bin/sh
# Plays launchctl: knows one agent, loaded while the file `loaded` is there.
echo "$*" >>{folder}/said
case "$1 $2" in
"print gui/"*/*) [ -f {folder}/loaded ] || exit 113; printf '\tactive count = 1\n\tstate = running\n\tpid = 17\n' ;;
"bootstrap gui/"*) cp "$3" {folder}/loaded ;;
"bootout gui/"*) [ -f {folder}/loaded ] || exit 3; rm {folder}/loaded ;;
esac
"""


def test_launchd_is_told_what_it_has_to_know(living: Rig, tmp_path: Path) -> None:
    """The order of words only: macOS itself is not tested."""
    program = tmp_path / "bin" / "launchctl"
    program.parent.mkdir()
    program.write_text(LAUNCHCTL.replace("{folder}", str(tmp_path)))
    program.chmod(0o755)
    mine = service.of(living.paths, {**living.env, "PATH": f"{program.parent}:{living.env['PATH']}"}, "darwin")
    assert isinstance(mine, service.Launchd) and mine.file.startswith(f"{living.home}/Library/LaunchAgents/")
    mine.check()
    script, _ = service.launcher(living.paths, living.env, ())
    assert mine.look() == service.Found(False, False)
    assert mine.write(script) and not mine.write(script)
    mine.switch_on()
    mine.start()
    assert (tmp_path / "loaded").read_bytes() == mine.text()
    assert mine.look() == service.Found(True, True)
    mine.switch_off()
    mine.remove()
    assert not mine.installed and mine.look() == service.Found(False, False)
    domain, target = f"gui/{os.getuid()}", f"gui/{os.getuid()}/{mine.name}"
    said = (tmp_path / "said").read_text().splitlines()
    assert [line for line in said if not line.startswith("print")] == [
        f"bootout {target}",
        f"enable {target}",
        f"bootstrap {domain} {mine.file}",
        f"kickstart {target}",
        f"bootout {target}",
    ]
    absent = service.of(living.paths, {**living.env, "PATH": "/nowhere"}, "darwin")
    with pytest.raises(SchedulerError, match="launchd does not answer"):
        absent.check()
    assert absent.look().problem


@pytest.mark.full
def test_a_service_whose_runner_does_not_come_up_is_told(cli: Command, living: Rig) -> None:
    Path(living.paths.state).mkdir(mode=0o700)
    Path(living.paths.runner_sock).mkdir()  # in the way of the socket
    said = cli("service", "install", code=1)
    assert "its runner has not come up" in said.err
    Path(living.paths.runner_sock).rmdir()
    wait_until(lambda: by_service(living), what="for the service to try again")
    cli("service", "uninstall")
