"""The benchmark of boards: what it says of one, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import boards
from benchmarks.boards import Figures
from codegen.linked import Linked, LinkedError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.boards", *arguments]
    return subprocess.run(command, cwd=boards.PROJECT_ROOT, capture_output=True, text=True, check=False)


@pytest.mark.e2e
def test_an_uno_is_measured() -> None:
    done = run("--json", "--only", "uno")
    assert done.returncode == 0, done.stderr
    uno = json.loads(done.stdout)["uno"]
    assert list(uno) == [field.name for field in fields(Figures)]
    board = boards.load("uno")
    assert uno["tier"] == "nano" and 0 < uno["stack_peak"] < board.ram - uno["ram_actual"]
    assert 0 < uno["goodput"] <= board.training.mtu / (board.training.mtu + 8)
    assert uno["round_s"] > 3e-3 * uno["step_ms"]


def test_a_board_that_nothing_emulates_is_refused_in_a_sentence() -> None:
    done = run("--only", "esp32dev")
    assert done.returncode == 2 and "esp32dev" in done.stderr and "uno" in done.stderr


@pytest.mark.parametrize(
    "path, tools, expected",
    [
        (Path("none.elf"), None, "cannot read none.elf"),
        (Path("none.elf"), "", "avr-size is missing; .* apt-get install binutils-avr"),
    ],
)
def test_an_image_that_cannot_be_read_says_why(
    path: Path, tools: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tools is not None:
        monkeypatch.setenv("PATH", tools)
    with pytest.raises(LinkedError, match=expected):
        assert Linked(path, "atmelavr").ram
