"""What boards said is kept, bounded, shown and harmless."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from boards import PROJECT_ROOT
from coordinator import boardlog
from coordinator.boardlog import BoardLogs, names, read
from coordinator.cli import main
from coordinator.events import Event, NodeLog, PortLog, RoundStarted, RunStarted
from coordinator.journal import Journal

SAID: list[Event] = [
    PortLog("/dev/ttyUSB0", "rst:0x1 (POWERON)"),
    NodeLog("small", "hello"),
    RoundStarted(3, ("small", "big"), 0.1),
    NodeLog("small", "brownout \x1b[31mred\n2026-01-01T00:00:00 9 forged"),
    NodeLog("small", "x" * 600),
]


def keep(folder: Path, events: list[Event] = SAID) -> Path:
    logs = BoardLogs(folder)
    for event in events:
        logs(event)
    return folder


def test_lines_are_kept_by_name_with_their_round(tmp_path: Path) -> None:
    keep(tmp_path)
    assert names(tmp_path) == ["dev_ttyUSB0", "small"]
    assert [line.text for line in read(tmp_path, "/dev/ttyUSB0")] == ["rst:0x1 (POWERON)"]
    first, forged, long = read(tmp_path, "small")
    assert (first.round, first.text) == (0, "hello")
    assert (forged.round, forged.text) == (3, "brownout \ufffd[31mred\ufffd2026-01-01T00:00:00 9 forged")
    assert long.text == "x" * 500


def test_a_later_coordinator_adds_to_them(tmp_path: Path) -> None:
    for _ in range(2):
        keep(tmp_path, [NodeLog("small", "hello")])
    assert len(read(tmp_path, "small")) == 2


def test_a_chatterbox_fills_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boardlog, "MOST_BYTES", 1000)
    keep(tmp_path, [NodeLog("small", f"line {number:03d}") for number in range(500)])
    files = list((tmp_path / "log").iterdir())
    assert len(files) == 2 and all(path.stat().st_size < 1050 for path in files)
    kept = [line.text for line in read(tmp_path, "small")]
    assert kept == [f"line {number:03d}" for number in range(500 - len(kept), 500)] and len(kept) > 30


def test_a_log_that_cannot_be_written_costs_no_round(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("in the way")
    keep(tmp_path)


def test_a_torn_line_is_not_shown(tmp_path: Path) -> None:
    path = keep(tmp_path, [NodeLog("small", "hello")]) / "log" / "small.log"
    path.write_bytes(path.read_bytes() + b"2026-01-01T00:0")
    assert [line.text for line in read(tmp_path, "small")] == ["hello"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a run of two nodes, of which one spoke, and an older one."""
    monkeypatch.chdir(tmp_path)
    for name, age in (("new", 0), ("old", 100)):
        folder = tmp_path / "runs" / name
        with Journal(folder) as journal:
            journal.write(RunStarted(name, "f", 2, ("small", "big")))
        when = (folder / "journal.jsonl").stat().st_mtime - age
        os.utime(folder / "journal.jsonl", (when, when))
    return keep(tmp_path / "runs" / "new")


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["small"], 0, "round 3  brownout", ""),
        (["/dev/ttyUSB0"], 0, "round 0  rst:0x1 (POWERON)\n", ""),
        (["big"], 0, "", ""),
        (["small", "--run", "old"], 0, "", ""),
        (["nobody"], 2, "", "nobody: no node of the run in runs/new; there are small, big, dev_ttyUSB0\n"),
        (["small", "--run", "none"], 10, "", "runs/none: no journal.jsonl; expected the folder of a run\n"),
        (["small", "--run", "../up"], 2, "", "--run ../up: expected at most 63 letters"),
        (["small", "--json", "--follow"], 2, "", "expected one of them"),
    ],
)
@pytest.mark.usefixtures("run")
def test_the_command(arguments: list[str], code: int, out: str, err: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["log", *arguments])
    said = capsys.readouterr()
    assert ended.value.code == code
    assert out in said.out and bool(said.out) == bool(out)
    assert err in said.err and bool(said.err) == bool(err)


@pytest.mark.usefixtures("run")
def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["log", "small", "--json"])
    lines = json.loads(capsys.readouterr().out)
    assert [line["round"] for line in lines] == [0, 3, 3] and lines[0]["text"] == "hello"


def test_following_shows_what_comes(run: Path) -> None:
    command = [sys.executable, "-m", "coordinator", "log", "small", "--follow"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    with subprocess.Popen(command, cwd=run.parents[1], stdout=subprocess.PIPE, text=True, env=environment) as following:
        assert following.stdout is not None
        shown = [following.stdout.readline() for _ in range(3)]
        keep(run, [NodeLog("small", "and more")])
        shown.append(following.stdout.readline())
        following.terminate()
    assert ["hello" in shown[0], "and more" in shown[-1]] == [True, True]
