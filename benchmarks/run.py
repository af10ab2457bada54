"""Run tasks in processes of their own, one after the other, and keep what they found."""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import time
from typing import Any

from cfseg.parallel import spin_briefly

Values = dict[str, Any]
ROOT = Path(__file__).parents[1]


def run(task: str, **values: Any) -> Values:
    """Run a task of :mod:`benchmarks.tasks` in a new process.

    Raises:
        SystemExit: it failed; its last words are printed.
    """
    environment = dict(os.environ)
    if not task.startswith("stock"):  # nnU-Net runs as it comes
        spin_briefly(environment)
    values["begun"] = time()
    command = [sys.executable, "-m", "benchmarks.tasks", task, json.dumps(values, default=str)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, env=environment
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        sys.stderr.write(done.stderr[-3000:])
        raise SystemExit(f"benchmark {task} failed")
    found: Values = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def rounds(count: int, *sides: tuple[str, Values]) -> list[list[Values]]:
    """Run tasks in turn, forwards in one round and backwards in the next; return a list of each."""
    found: list[list[Values]] = [[] for _ in sides]
    for number in range(count):
        order = range(len(sides))
        for side in order if number % 2 == 0 else reversed(order):
            task, values = sides[side]
            found[side].append(run(task, **values))
            about = f"{task}, int8" if "graph" in values else task
            print(f"  {about}: {found[side][-1]['seconds']['total']:.1f} s", flush=True)
    return found
