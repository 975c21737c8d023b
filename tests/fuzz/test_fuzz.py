"""The corpus, and a bounded number of inputs made from it, break neither the link nor any kind of node."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, NODES, TARGETS, MissingCompiler, compiled

RUNS = {"decoder": 20_000}
EVERYTHING = 0b111111  # node.c's `reached`: all five states, and an update that arrived whole


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_breaks_it(target: str, tmp_path: Path) -> None:
    try:
        program = compiled(target, tmp_path)
    except MissingCompiler as error:
        pytest.fail(str(error), pytrace=False)
    inputs = sorted((CORPUS / target).iterdir())
    alone = _run(program, *map(str, inputs))
    if target in NODES:
        assert int(alone.split("reached ")[1]) == EVERYTHING, "messages have changed: python -m tests.fuzz.record"
    found = tmp_path / "found"  # libFuzzer writes to the first folder it is given
    found.mkdir()
    limits = ("-seed=1", f"-runs={RUNS.get(target, 2000)}", f"-artifact_prefix={tmp_path}/")
    _run(program, *limits, str(found), str(CORPUS / target))


def _run(program: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        pytest.fail(f"{program} {' '.join(arguments)}\n{done.stderr[-4000:]}", pytrace=False)
    return done.stdout
