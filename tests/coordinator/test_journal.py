"""Nothing that was journaled is lost, and nothing else is believed."""

import dataclasses
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from coordinator.errors import sentence
from coordinator.events import CheckpointWritten, Evaluated, NodeAnswered, NodeProgress, RoundStarted
from coordinator.journal import (
    Journal,
    JournalError,
    event_name,
    read_journal,
    weights_sha256,
    write_durably,
)
from coordinator.state import Shapes, State

SHAPES = Shapes([(2, 3), (3,)])


def state(seed: int) -> State:
    rng = np.random.default_rng(seed)
    return State([rng.normal(size=shape).astype(np.float32) for shape in SHAPES.tensors])


def test_events_become_lines(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.write(RoundStarted(1, ("a", "b"), 0.1))
        journal.write(NodeProgress("a", 1, "training"))
        journal.write(Evaluated(1, {"expanded": 0.5}))
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["round_started", "evaluated"]
    assert lines[0]["nodes"] == ["a", "b"] and lines[1]["accuracy"] == {"expanded": 0.5}
    assert all(line["time"] > 1.6e9 for line in lines)


def test_what_is_written_is_durable_before_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which the disk is asked: no test can cut the power, but every step that survives it is there."""
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def recorded_sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        steps.append("sync folder" if stat.S_ISDIR(status.st_mode) else f"sync {status.st_size} bytes")
        sync(descriptor)

    def recorded_replace(path: Path, target: Path) -> Path:
        steps.append(f"rename {path.name} {target.name}")
        return replace(path, target)

    with Journal(tmp_path) as journal:
        monkeypatch.setattr(os, "fsync", recorded_sync)
        monkeypatch.setattr(Path, "replace", recorded_replace)
        written = journal.save(1, state(1))
        journal.write(written)
    file, line = (tmp_path / name for name in ("round-001.npz", "journal.jsonl"))
    assert steps == [
        f"sync {file.stat().st_size} bytes",
        "rename round-001.npz.tmp round-001.npz",
        "sync folder",
        f"sync {line.stat().st_size} bytes",
    ]


def test_event_names() -> None:
    assert event_name(CheckpointWritten) == "checkpoint_written"


def test_a_torn_last_line_is_dropped_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(tmp_path) as journal:
        journal.write(NodeAnswered("a", 1, 10, 0.5, 1.0))
        whole = path.stat().st_size
        journal.write(NodeAnswered("b", 1, 10, 0.5, 1.0))
    content = path.read_bytes()
    for cut in range(whole, len(content)):
        path.write_bytes(content[:cut])
        assert [line["node"] for line in read_journal(path)[0]] == ["a"]
        with Journal(tmp_path, resume=True) as journal:
            journal.write(NodeAnswered("c", 1, 10, 0.5, 1.0))
        assert [line["node"] for line in read_journal(path)[0]] == ["a", "c"]


def answer(**changes: object) -> bytes:
    """A line of a node that answered, with some of it changed; None: left out."""
    good = {"event": "node_answered", "time": 1.5, "node": "a", "round": 1, "samples": 9, "loss": 0.5, "seconds": 1}
    return json.dumps({key: value for key, value in (good | changes).items() if value is not None}).encode()


DAMAGE = [
    b"{}", b"[1]", b"\x80\xff", b"null", b"{'event': 1}", b"[" * 5000,
    answer(event="node"), answer(event=["node_answered"]), answer(event=None), answer(round=None),
    answer(round="1"), answer(round=1.5), answer(round=[]), answer(node=1), answer(loss="low"), answer(samples={}),
    answer(loss=float("nan")), answer(loss=float("inf")), answer(samples=10**15),
    answer(samples=0).replace(b": 0,", b": " + b"9" * 5000 + b","),
    answer(time=None), answer(time="now"), answer(time=True), answer(time=-1), answer(time=1e11),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_is_refused_by_line(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "journal.jsonl").write_bytes(answer() + b"\n" + damage + b"\n")
    with pytest.raises(JournalError, match=r"journal.jsonl:2: not a line of a journal"):
        Journal(tmp_path, resume=True)


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.write(RoundStarted(1, (), 0.1))
    with pytest.raises(JournalError, match="--resume"):
        Journal(tmp_path)


def test_a_run_in_use_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(JournalError, match="another coordinator"):
        Journal(tmp_path, resume=True)
    Journal(tmp_path, resume=True).close()


def test_the_last_valid_checkpoint_is_found(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert journal.last_checkpoint(SHAPES) is None
        for number in (1, 2, 3):
            journal.write(journal.save(number, state(number)))
    # Round 4's checkpoint is on the disk, but the coordinator was killed before the journal named it.
    (tmp_path / "round-004.npz").write_bytes((tmp_path / "round-003.npz").read_bytes())
    with Journal(tmp_path, resume=True) as journal:
        found = journal.last_checkpoint(SHAPES)
        assert found is not None and found[0] == 3 and found[1].content() == state(3).content()
    damaged = bytearray((tmp_path / "round-003.npz").read_bytes())
    damaged[200] ^= 1
    (tmp_path / "round-003.npz").write_bytes(damaged)
    with Journal(tmp_path, resume=True) as journal:
        found = journal.last_checkpoint(SHAPES)
        assert found is not None and found[0] == 2 and found[1].content() == state(2).content()
        assert journal.last_checkpoint(Shapes([(9, 9), (3,)])) is None
    assert not list(tmp_path.glob("*.tmp"))


def test_a_checkpoint_is_the_file_of_its_round(tmp_path: Path) -> None:
    """A digit that a disk has changed must not make another round of it, nor lead out of the folder."""
    with Journal(tmp_path / "run") as journal:
        line = dataclasses.asdict(journal.save(1, state(1)))
        assert journal.read_checkpoint(line, SHAPES) is not None
        (tmp_path / "round-001.npz").write_bytes((tmp_path / "run" / "round-001.npz").read_bytes())
        for changes in ({"round": 2}, {"file": "round-002.npz"}, {"file": "../round-001.npz"}, {"file": "a\0b"}):
            assert journal.read_checkpoint(line | changes, SHAPES) is None


def test_the_digest_is_of_the_values(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        first, second = journal.save(1, state(1)), journal.save(2, state(1))
    assert first.sha256 == second.sha256
    assert first.weights_sha256 == second.weights_sha256 == weights_sha256(state(1).weights)
    assert weights_sha256(state(1).weights) != weights_sha256(state(2).weights)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "summary.json.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError) as full:
        write_durably(tmp_path / "summary.json", b"x")
    assert sentence(full.value).startswith(f"{tmp_path / 'summary.json'}: No space left on device; make room")
