"""Verbs that print what other programs read once: shell completion, the JSON Schema of the config."""

from __future__ import annotations

import click

from scheduler.cli import output

PROGRAM = "claude-scheduler"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the lines that give your shell completion of claude-scheduler.

    \b
    bash  echo 'eval "$(claude-scheduler completion bash)"' >> ~/.bashrc
    zsh   echo 'eval "$(claude-scheduler completion zsh)"' >> ~/.zshrc
    fish  claude-scheduler completion fish > ~/.config/fish/completions/claude-scheduler.fish
    """
    from click.shell_completion import get_completion_class

    from scheduler.cli.main import COMPLETE_VAR, cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, PROGRAM, COMPLETE_VAR).source())


@click.command()
def schema() -> None:
    """Print the JSON Schema of config.json, as it is shipped."""
    from scheduler.core.schema import config_schema

    output.say_json(config_schema())
