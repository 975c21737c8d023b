"""Generated files: written once, left alone after, and without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from boards import PROJECT_ROOT
from codegen.build import write_if_changed

EXAMPLE = PROJECT_ROOT / "examples" / "mnist" / "model.py"
GENERATE = """
import sys
from pathlib import Path
import boards
from codegen.build import generate
from codegen.model_file import load_graph
from codegen.planner import Training
from codegen.tiers import DEFAULT_TIERS, tiers_from
graph, weights = load_graph(Path(sys.argv[1]), None, int(sys.argv[2]))
plan = generate(boards.load("megaatmega2560"), graph, weights, tiers_from(DEFAULT_TIERS), Training(), Path(sys.argv[3]))
print(plan.sub_model.tier.name, "tensorflow" in sys.modules or "keras" in sys.modules)
"""


def generate(model: Path, seed: int, out: Path) -> str:
    """Generate in a process of its own; return the tier, and whether TensorFlow was imported."""
    command = [sys.executable, "-c", GENERATE, str(model), str(seed), str(out)]
    return subprocess.run(command, cwd=PROJECT_ROOT, check=True, capture_output=True, text=True).stdout.strip()


def test_unchanged_inputs_regenerate_nothing_and_import_no_tensorflow(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(EXAMPLE.read_text())
    files = [tmp_path / "out" / "model.h", tmp_path / "out" / "protocol.h"]
    assert generate(model, 1, tmp_path / "out") == "compact True"
    times = [file.stat().st_mtime_ns for file in files]
    assert generate(model, 1, tmp_path / "out") == "compact False"
    assert [file.stat().st_mtime_ns for file in files] == times
    model.write_text(model.read_text().replace("negative_slope=0.1", "negative_slope=0.2"))
    assert generate(model, 1, tmp_path / "out") == "compact True"
    assert [file.stat().st_mtime_ns == time for file, time in zip(files, times, strict=True)] == [False, True]


def test_files_are_replaced_whole_and_only_when_they_change(tmp_path: Path) -> None:
    path = tmp_path / "a.h"
    assert write_if_changed(path, "×")
    assert not write_if_changed(path, "×")
    assert write_if_changed(path, "÷")
    assert path.read_text(encoding="utf-8") == "÷"
    assert [file.name for file in tmp_path.iterdir()] == ["a.h"]
