"""Whether the plugin that started the runner is still installed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping

from scheduler.disk import files

LIMIT = 4 * 1024 * 1024


def was_uninstalled(env: Mapping[str, str]) -> bool:
    """Whether a runner with this environment has lost its plugin. What cannot be read proves nothing.

    `SCHEDULER_PLUGIN_DATA` (the hooks set it for an installed plugin) is the client's `plugins/data/ID`; which plugins
    there are is in `plugins/installed_plugins.json`, by names that differ from ID in their signs only.
    """
    data = env.get("SCHEDULER_PLUGIN_DATA", "")
    if env.get("SCHEDULER_STARTED_BY") != "plugin" or not data:
        return False
    listed = os.path.join(os.path.dirname(os.path.dirname(data)), "installed_plugins.json")
    try:
        plugins = json.loads(files.read_bounded(listed, LIMIT))["plugins"]
        ids = {re.sub(r"[^A-Za-z0-9_-]", "-", name) for name, places in plugins.items() if places}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return os.path.basename(data) not in ids
