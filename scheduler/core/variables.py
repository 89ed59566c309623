"""Which environment variables a task may not set, since they would change who judges it. Pure.

A task's `env` comes from a file of the repository. Whatever could lead the login to another server, move our state,
alter git's or the loader's behaviour, or switch off the client's own checks belongs to the user, never to that file.
"""

from __future__ import annotations

from collections.abc import Iterable

_NAMES = frozenset(
    "AI_AGENT ALL_PROXY BASH_ENV BUN_OPTIONS CURL_CA_BUNDLE ENV HOME HTTPS_PROXY HTTP_PROXY IFS IS_SANDBOX LOGNAME "
    "NODE_EXTRA_CA_CERTS NODE_OPTIONS NODE_TLS_REJECT_UNAUTHORIZED NODE_USE_SYSTEM_CA NO_PROXY PATH PYTHONHOME "
    "PYTHONSTARTUP REQUESTS_CA_BUNDLE SHELL SSL_CERT_DIR SSL_CERT_FILE TMPDIR USER".split()
)
_PREFIXES = ("ANTHROPIC_", "CLAUDE", "DYLD_", "GIT_", "LD_", "SCHEDULER_", "XDG_")


def refused_names(names: Iterable[str]) -> list[str]:
    """Those of `names` that a task may not set, sorted. Case does not count: proxies are read in both."""
    return sorted(name for name in names if name.upper() in _NAMES or name.upper().startswith(_PREFIXES))
