"""Damage to a run's files and to the federation file: the truth or a sentence, and never a traceback."""

import contextlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boards import PROJECT_ROOT
from coordinator.errors import FederationError, RunFileError
from coordinator.events import (
    Evaluated,
    NodeAnswered,
    NodeFailed,
    RoundAggregated,
    RoundStarted,
    RunEnded,
    RunStarted,
)
from coordinator.federation import load
from coordinator.journal import Journal
from coordinator.report import write_report
from coordinator.results import earlier_seconds
from coordinator.state import Shapes, State

ROUNDS = 3
SHAPES = Shapes([(2, 3), (3,)])
EXAMPLES = sorted((PROJECT_ROOT / "examples").glob("*/*.toml"))


def weights(number: int) -> list[np.ndarray]:
    """What round `number` of the run below ended in."""
    rng = np.random.default_rng(number)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES.tensors]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run."""
    folder = tmp_path_factory.mktemp("whole")
    with Journal(folder) as journal:
        journal.write(RunStarted("run", "f" * 64, ROUNDS, ("a", "b"), 0))
        for number in range(1, ROUNDS + 1):
            journal.write(RoundStarted(number, ("a", "b"), 0.1))
            journal.write(NodeAnswered("a", number, 10, 0.5, 1.0))
            journal.write(NodeFailed("b", number, "no answer"))
            journal.write(RoundAggregated(number, ("a",), True, "", 2.0))
            journal.write(journal.save(number, State(weights(number))))
            journal.write(Evaluated(number, {"wide": 0.25 * number}))
        journal.write(RunEnded(ROUNDS, 9.0, "0" * 64))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """What a disk, or somebody, may have made of a file."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 1, 1, 7, 512])))
        how = draw(st.sampled_from(["cut", "change", "zero", "insert", "double", "swap"]))
        if how == "cut":
            content = content[:start]
        elif how == "change":
            content = content[:start] + draw(st.binary(min_size=end - start, max_size=end - start)) + content[end:]
        elif how == "zero":
            content = content[:start] + bytes(end - start) + content[end:]
        elif how == "insert":
            content = content[:start] + draw(st.binary(max_size=20)) + content[start:]
        elif how == "double":
            content = content[:end] + content[start:]
        else:
            lines = content.split(b"\n")
            first, second = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
            lines[first], lines[second] = lines[second], lines[first]
            content = b"\n".join(lines)
    return content


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_run_gives_a_true_checkpoint_or_a_sentence(
    whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run")
    victims = data.draw(
        st.sets(st.sampled_from(["journal.jsonl", *(f"round-00{n}.npz" for n in (1, 2, 3))]), min_size=1)
    )
    for name, content in whole.items():
        (folder / name).write_bytes(data.draw(damaged(content)) if name in victims else content)
    try:
        with Journal(folder, resume=True) as journal:
            found = journal.last_checkpoint(SHAPES)
            assert earlier_seconds(journal.lines) is not None
    except RunFileError as error:
        assert str(error).startswith(str(folder)) and "\n" not in str(error)
        return
    if found is not None:
        number, state = found
        assert state.content() == State(weights(number)).content()
    with contextlib.suppress(RunFileError):
        write_report(folder)


VALUES = (
    "9" * 400, "-1", "0", "nan", "-inf", "1e999", "1979-05-27", '"\\u0000"', '"\\u001b[31m"', '"' + "x" * 300 + '"',
    "[]", "{}", "[" * 60 + "]" * 60, "true", '"../../etc/passwd"', '"auto"', "0x7fffffffffffffffff", "[1, [{a = 3}]]",
    "'''\n\n'''", "2.0", "", "\x00", "\x1b", "\ud7ff", "=",
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_federation_file_gives_a_federation_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("federation") / "federation.toml"
    lines = data.draw(st.sampled_from(EXAMPLES)).read_text().split("\n")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        key, equals, _ = lines[at].partition("=")
        how = data.draw(st.sampled_from(["value", "value", "drop", "double", "key", "move"]))
        if how == "value" and equals:
            lines[at] = f"{key}= {data.draw(st.sampled_from(VALUES))}"
        elif how == "drop":
            del lines[at : at + data.draw(st.integers(1, 4))]
        elif how == "double":
            lines[at:at] = lines[at : at + data.draw(st.integers(1, 4))]
        elif how == "key":
            lines[at] = data.draw(st.sampled_from(["seed", "[a.b]", "[[nodes]]", "[[model]]", "a.b.c", '""'])) + " = 1"
        else:
            lines.append(lines.pop(at))
        lines = lines or [""]
    path.write_bytes(
        data.draw(damaged("\n".join(lines).encode())) if data.draw(st.booleans()) else "\n".join(lines).encode()
    )
    try:
        federation = load(path)
    except FederationError as error:
        assert str(error).startswith(str(path))
        assert str(error).isprintable(), ascii(str(error))
        return
    assert federation.nodes() and federation.tier_list() and federation.digest
    federation.plan_settings()
