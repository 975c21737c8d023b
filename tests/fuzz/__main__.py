"""Fuzz for minutes: python -m tests.fuzz [--minutes N] [TARGET …], or `make fuzz`.

What is new is kept in build/fuzz/<target>/, so that the next run goes on there; what breaks something is written to
build/fuzz/<target>-crash-… and given back to the program as its only argument it breaks again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import boards
from tests.fuzz.targets import CORPUS, TARGETS, MissingCompiler, compiled

KEPT = Path(boards.PROJECT_ROOT) / "build" / "fuzz"


def main() -> int:
    """Run every target for its share of the time, on all cores; stop at the first that breaks."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=5.0, help="altogether")
    options = parser.parse_args()
    targets = options.targets or TARGETS
    for target in targets:
        found = KEPT / target
        found.mkdir(parents=True, exist_ok=True)
        seconds = max(1, round(options.minutes * 60 / len(targets)))
        try:
            program = compiled(target, KEPT / "programs" / target)
        except MissingCompiler as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{target}: {seconds} s", flush=True)
        limits = (f"-fork={os.cpu_count()}", f"-max_total_time={seconds}", "-timeout=10", "-use_value_profile=1")
        arguments = (*limits, f"-artifact_prefix={KEPT}/{target}-", str(found), str(CORPUS / target))
        done = subprocess.run(
            [str(program), *arguments], stderr=subprocess.PIPE, text=True, errors="replace", check=False
        )
        lines = done.stderr.splitlines()
        if done.returncode != 0:
            print("\n".join(lines[-60:]), file=sys.stderr)
            return 1
        print(next((line for line in reversed(lines) if " cov: " in line), lines[-1]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
