"""Verbs that print what other programs read once: shell completion, the JSON Schema of the config."""

from __future__ import annotations

import os
import shlex
import sys

import click

from scheduler.cli import output

PROGRAM = "claude-scheduler"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the lines that give your shell completion of this program, under the name of the file that was called.

    Below, that is `scheduler`: scripts/scheduler in the plugin's folder, also by an alias of that name, which must
    stand before the line. Where it is installed as claude-scheduler, write that.

    \b
    bash  echo 'eval "$(scheduler completion bash)"' >> ~/.bashrc
    zsh   echo 'eval "$(scheduler completion zsh)"' >> ~/.zshrc
    fish  scheduler completion fish > ~/.config/fish/completions/scheduler.fish
    """
    from click.shell_completion import get_completion_class

    from scheduler.cli.main import COMPLETE_VAR, cli

    kind = get_completion_class(shell)
    assert kind is not None
    launcher = os.environ.get("SCHEDULER_LAUNCHER", "")
    if os.path.basename(sys.argv[0]) == PROGRAM or not os.path.isabs(launcher):
        click.echo(kind(cli, {}, PROGRAM, COMPLETE_VAR).source())
        return
    name = shlex.quote(os.path.basename(launcher))
    lines = kind(cli, {}, name, COMPLETE_VAR).source()
    # The name may be an alias, which only the shell's own prompt knows: the answers come from the file itself.
    for asked in (f"={shell}_complete $1)", f"={shell}_complete {name})"):
        lines = lines.replace(asked, f"={shell}_complete {shlex.quote(launcher)})")
    lines = lines.replace(f"(commandline -t) {name})", f"(commandline -t) {shlex.quote(launcher)})")
    click.echo(lines.replace(f"    (( ! $+commands[{name}] )) && return 1\n", ""))


@click.command()
def schema() -> None:
    """Print the JSON Schema of config.json, as it is shipped."""
    from scheduler.core.schema import config_schema

    output.say_json(config_schema())
