"""Who approves, and whether that is a person: a yes is given in a terminal, typed into a session, or by a script.

A model that calls the command line by a tool cannot give it. It is known by the variable that the client gives its
tools: a program of the user's own account that hides it can pass for a script.
"""

from __future__ import annotations

import hmac
import json
import os
import pwd
import secrets
import sys
from contextlib import suppress

import click

from scheduler.cli.context import Context
from scheduler.core.plain import visible
from scheduler.disk import files
from scheduler.errors import SchedulerError
from scheduler.store.config import Source
from scheduler.store.trust import Approval, Approver, Suspension

LASTS = 3600  # s: so long a word that was shown can be typed
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look like another
_LIMIT = 1 << 16


def approver(context: Context) -> Approver:
    """Who calls the verb that is at work."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    how = "terminal" if sys.stdin.isatty() else "script"
    if context.typed is not None or _is_tool(context):
        how = "claude" if context.typed is None else "typed"
    session = context.typed or context.env.get("CLAUDE_CODE_SESSION_ID") or ""
    return Approver(user, how, click.get_current_context().info_name or "", session[:8] or None)


def words(approval: Approval) -> str:
    """When and by whom, as it is said of an approval."""
    at = approval.at[:16].replace("T", " ")
    return f"on {at}" if approval.by is None else f"on {at} by {visible(approval.by.words())}"


def _is_tool(context: Context) -> bool:
    return context.typed is None and bool(context.env.get("CLAUDECODE"))


def refuse_unread(context: Context) -> None:
    """Raise SchedulerError inside a session, where a yes without a word is a model's, or was not read before."""
    if context.typed is not None:
        raise SchedulerError("a yes in a session is the word that is shown there", "see it: /scheduler:enable")
    if _is_tool(context):
        raise SchedulerError(
            "a yes inside Claude Code is for a person to type, not for a tool call",
            "type /scheduler:enable in the session, or run 'enable' in a terminal",
        )


def ask(context: Context, source: Source, suspension: Suspension | None) -> str:
    """Ask a person in a session: the word that says yes to exactly this, for an hour, in this session, once."""
    word = "".join(secrets.choice(_LETTERS) for _ in range(4))
    asked = {**_shown(context, source, suspension), "word": word, "at": context.now.timestamp()}
    files.write_atomic(context.paths.asked, json.dumps(asked).encode() + b"\n")
    return word


def take_back(context: Context) -> None:
    """Let no word count any more."""
    with suppress(FileNotFoundError):
        os.unlink(context.paths.asked)


def answered(context: Context, source: Source, suspension: Suspension | None, word: str) -> None:
    """Take a person's word for the yes. SchedulerError where it is not what `ask` gave for exactly this; then the one
    that `ask` gave counts no more."""
    try:
        asked = json.loads(files.read_bounded(context.paths.asked, _LIMIT))
        given, at = str(asked.pop("word")), float(asked.pop("at"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        asked, given, at = None, "", 0.0
    take_back(context)
    age = context.now.timestamp() - at
    if asked != _shown(context, source, suspension) or not 0 <= age <= LASTS:
        raise SchedulerError("what you say yes to has not been shown here as it is now", "see it: /scheduler:enable")
    if not hmac.compare_digest(given.encode(), word.lower().encode()):
        raise SchedulerError("that is not the word that was shown", "look again: /scheduler:enable")


def _shown(context: Context, source: Source, suspension: Suspension | None) -> dict[str, object]:
    run = None if suspension is None else suspension.run
    return {"project": source.project, "digest": source.digest, "suspendedBy": run, "session": context.typed}
