"""What the studies share: commands of `u2net` in a home of their own, none of them run twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDERS = {
    "hippocampus": "Task04_Hippocampus",
    "heart": "Task02_Heart",
    "promise12": "Task25_Promise12",
    "headneck": "Task21_HeadNeck",
}
BUNDLED = ("heart", "hippocampus")  # the others' plugins are as `u2net domain new` writes them


def u2net(home: Path, plugins: Path, *command: object) -> Any:
    """The data that a command answers with."""
    environment = os.environ | {"U2NET_HOME": str(home), "U2NET_PLUGINS": str(plugins)}
    words = [sys.executable, "-m", "u2net_platform", *map(str, command), "--json"]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)["data"]


def once(file: Path, work: Callable[[], Any]) -> Any:
    """What is in the file, else what the work gives, with the seconds that it took."""
    if file.exists():
        return json.loads(file.read_text())
    started = time.monotonic()
    content: dict[str, Any] = {"found": work()}
    content["seconds"] = time.monotonic() - started
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, default=str))
    temporary.replace(file)
    return content
