"""Run tasks in processes of their own, one after the other, and keep what they found."""

import json
import subprocess
import sys
from pathlib import Path
from time import time
from typing import Any

Values = dict[str, Any]
ROOT = Path(__file__).parents[1]


def run(task: str, **values: Any) -> Values:
    """Run a task of :mod:`benchmarks.tasks` in a new process.

    Raises:
        SystemExit: it failed; its last words are printed.
    """
    values["begun"] = time()
    command = [sys.executable, "-m", "benchmarks.tasks", task, json.dumps(values, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        sys.stderr.write(done.stderr[-3000:])
        raise SystemExit(f"benchmark {task} failed")
    found: Values = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def pairs(count: int, one: tuple[str, Values], other: tuple[str, Values]) -> list[list[Values]]:
    """Run two tasks in turn, the first of a pair changing, and return both lists."""
    found: list[list[Values]] = [[], []]
    for number in range(count):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        for side in order:
            task, values = (one, other)[side]
            found[side].append(run(task, **values))
            print(f"  {task}: {found[side][-1]['seconds']['total']:.1f} s", flush=True)
    return found
