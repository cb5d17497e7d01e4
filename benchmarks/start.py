"""How long commands take that only look something up, from start to end of the process.

.venv/bin/python benchmarks/start.py [--repeats 15]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

COMMANDS = (["--help"], ["domain", "list"], ["model", "list"], ["predict", "--help"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    program = Path(sys.executable).with_name("u2net")
    print("| command | median, s | slowest, s |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        for command in COMMANDS:
            times = []
            for _ in range(repeats + 1):
                started = time.perf_counter()
                subprocess.run(
                    [program, *command],
                    env=os.environ | {"U2NET_HOME": home},
                    stdout=subprocess.DEVNULL,
                    check=True,
                )
                times.append(time.perf_counter() - started)
            del times[0]  # the first makes the catalog
            print(f"| `u2net {' '.join(command)}` | {median(times):.2f} | {max(times):.2f} |")


if __name__ == "__main__":
    main()
