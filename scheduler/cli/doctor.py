"""doctor: looks at all that has to be well for tasks to run, and says of each what is so and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import click

from scheduler.cli import doctor_machine, doctor_runs, doctor_state, output
from scheduler.cli.context import Context, json_option, refuse_inside_run
from scheduler.cli.patient import Check, Found, Patient, examine
from scheduler.core import format as fmt
from scheduler.core.health import SIGNS, Finding
from scheduler.core.plain import plain
from scheduler.errors import SchedulerError

HANDS = 8
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended without harm, and say what was done.")
@json_option
@click.pass_obj
def doctor(context: Context, /, fix: bool, as_json: bool) -> int:
    """Look whether all is well: the client and its login as the runner has them, git, remotes, clock, disks, locks,
    what is written down, what runs left behind. Exit code 0 when nothing fails.
    """
    if fix:
        refuse_inside_run(context.env, "doctor --fix")
    patient = examine(context)
    found = _look(patient)
    done = [_mend(one) for one in found if one.fix is not None] if fix else []
    if done:
        found = _look(examine(context))
    findings = [one.finding for one in found]
    bad = sum(finding.level == "fail" for finding in findings)
    if as_json:
        told = [finding._asdict() for finding in findings]
        output.say_json({"ok": not bad, "findings": told, "done": done, "environment": patient.whose})
    else:
        _tell(findings, done)
    return int(bad > 0)


def _look(patient: Patient) -> list[Found]:
    """All findings in the order of the checks, which are made beside one another: some wait for programs or remotes."""
    checks = [
        *doctor_runs.checks(patient),
        *doctor_machine.checks(patient),
        *doctor_state.checks(patient),
    ]
    with ThreadPoolExecutor(HANDS) as pool:
        return list(chain.from_iterable(pool.map(_made, checks)))


def _made(check: Check) -> Sequence[Found]:
    """The findings of a check; what it found until then, and that it could not be made, where it fails."""
    found: list[Found] = []
    try:
        found.extend(check.look())
    except SchedulerError as error:
        found.append(Found(Finding("warn", check.name, f"could not be checked: {error.message}", error.hint)))
    except Exception as error:
        found.append(Found(Finding("warn", check.name, f"could not be checked: {error!r:.200}")))
    return found


def _mend(found: Found) -> dict[str, Any]:
    """What was done about a finding."""
    assert found.fix is not None
    try:
        said, well = found.fix(), True
    except (SchedulerError, OSError) as error:
        said, well = f"not mended: {error}", False
    return {"name": found.finding.name, "text": said, "done": well}


def _tell(findings: list[Finding], done: list[dict[str, Any]]) -> None:
    for finding in findings:
        sign = click.style(f"{SIGNS[finding.level]} {finding.level.ljust(4)}", fg=_COLOURS[finding.level])
        click.echo(f"{sign}  {plain(finding.name)}: {plain(finding.text)}")
        if finding.mend and finding.level != "ok":
            click.echo(f"        → {plain(finding.mend)}")
    for one in done:
        output.say(f"{'done' if one['done'] else 'NOT done'}: {one['name']}: {one['text']}")
    counts = [(level, sum(finding.level == level for finding in findings)) for level in ("fail", "warn")]
    said = [
        f"{count} {'thing' if count == 1 else 'things'} {verb}"
        for (_, count), verb in zip(counts, ("wrong", "to look at"), strict=True)
        if count
    ]
    output.say(f"\n{' and '.join(said) or 'all is well'} ({fmt.count(len(findings), 'finding')})")
