"""`answer`, for the client's UserPromptExpansion hook: a slash command that shows something, or takes a person's yes,
without the model.

Reads the hook's input, runs the verb in this process as the shell would, and prints the hook's answer: the text, and
that no prompt is to be sent. The words of the user are taken apart as a shell does, and reach no shell.
"""

from __future__ import annotations

import io
import json
import os
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any

import click

from scheduler.cli import approver
from scheduler.cli.context import Context
from scheduler.hooks import wire

PLUGIN = "scheduler"
ANSWERED = ("status", "list", "next", "history", "stats", "logs", "enable")
_ELSEWHERE = {"enable": "this is too long to be approved here: run 'scheduler enable' in a terminal"}
TEXT_LIMIT = 9000  # the client puts longer texts into a file


@click.command()
@click.pass_obj
def answer(context: Context) -> None:
    """Answer the slash command on standard input; silent for one that is not ours to answer, or that nobody hears."""
    try:
        asked = wire.read_event(0)
        plugin, _, verb = str(asked["command_name"]).partition(":")
        words = str(asked.get("command_args") or "")
        folder = str(asked.get("cwd") or "")
    except (OSError, ValueError, KeyError):
        return
    if plugin != PLUGIN or verb not in ANSWERED:
        return
    if os.path.isdir(folder):
        os.chdir(folder)
    if not context.env.get("CLAUDE_CODE_ENTRYPOINT", "").startswith("sdk"):  # with -p nobody types
        context = replace(context, typed=wire.text(asked, "session_id") or "unknown")
    said = json.dumps({"decision": "block", "reason": _text(context, verb, words)})
    try:
        os.write(1, said.encode() + b"\n")
    except OSError:
        pass


def _text(context: Context, verb: str, words: str) -> str:
    try:
        arguments = shlex.split(words)
        if verb == "enable" and arguments[:1] == ["yes"] and len(arguments) < 3:
            arguments = ["--word", *(arguments[1:] or [""])]
    except ValueError as error:
        return f"error: {error}\n  close the quotation"
    if any(map(_follows, arguments)):
        return "error: a slash command cannot follow a log\n  use the shell: scheduler logs -f"
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace", write_through=True)
    with redirect_stdout(output), redirect_stderr(output):
        code = _run([verb, *arguments], context)
    text = output.buffer.getvalue().decode("utf-8", "replace").strip("\n")
    if len(text) > TEXT_LIMIT:
        if verb == "enable":
            approver.take_back(context)  # nobody says yes to what they did not see
        text = text[:TEXT_LIMIT].rpartition("\n")[0] + f"\n… cut; {_ELSEWHERE.get(verb, 'the shell shows all of it')}"
    return text or ("nothing to show" if code == 0 else f"error: 'scheduler {verb}' ended with code {code}")


def _follows(word: str) -> bool:
    """Whether it is the option, also among other letters: -fn 5."""
    return word == "--follow" or (word[:1] == "-" != word[1:2] and "f" in word)


def _run(arguments: list[str], context: Context) -> int:
    from scheduler.cli import main

    runs: Any = main.main
    return int(runs(arguments, context))
