"""Which port is whose, and what is offered to be flashed."""

import shlex
from pathlib import Path

import pytest

from boards import PROJECT_ROOT
from codegen.protocol import PROTOCOL_VERSION, Hello
from coordinator import desk
from coordinator.desk import Plugged, assign, offers, places
from coordinator.federation import NodeSpec, load
from coordinator.link.ports import PortInfo
from coordinator.roster import named_uid

UNO, MEGA, BOTH = ("uno",), ("megaatmega2560",), ("uno", "megaatmega2560")  # the last: a bridge that many boards have
A, B, M = (NodeSpec("a", "uno", None), NodeSpec("b", "uno", "00000000000000bb"), NodeSpec("m", "megaatmega2560", None))


def hello(uid: str, board: str) -> Hello:
    return Hello(PROTOCOL_VERSION, 74, 4, 1, 0, bytes.fromhex(uid), 0, 0, 0, 0, 1, 0, 0, 0, board, "nano")


def port(name: str, kinds: tuple[str, ...] = UNO, uid: str = "", board: str = "uno") -> Plugged:
    return Plugged(PortInfo(name, "", "2341:0043"), kinds, hello(uid, board) if uid else None)


SILENT, OTHER, KEPT, THERE = (
    port("p1"),
    port("p2", uid="0" * 16),
    port("p3", uid=named_uid("a")),
    port("p4", uid=B.uid or ""),
)
CLONE, PRINTER = port("p5", BOTH), port("p6", ())


@pytest.mark.parametrize(
    ("spec", "plugged", "expected"),
    [
        (A, [SILENT, OTHER, KEPT], [KEPT]),
        (A, [SILENT, OTHER], [OTHER, SILENT]),
        (A, [THERE], []),
        (A, [PRINTER, CLONE], [CLONE]),
        (M, [SILENT, OTHER, CLONE], [CLONE]),
        (M, [port("p7", BOTH, "1" * 16, "uno")], []),
        (M, [port("p7", BOTH, "1" * 16, "megaatmega2560")], [port("p7", BOTH, "1" * 16, "megaatmega2560")]),
    ],
)
def test_where_a_node_may_be_flashed(spec: NodeSpec, plugged: list[Plugged], expected: list[Plugged]) -> None:
    assert places(spec, [A, B, M], plugged) == expected


@pytest.mark.parametrize(
    ("plugged", "expected"),
    [
        ([], [None, None, None]),
        ([SILENT], [SILENT, None, None]),
        ([SILENT, KEPT], [KEPT, SILENT, None]),
        ([SILENT, THERE], [SILENT, THERE, None]),
        ([CLONE, SILENT, OTHER], [OTHER, CLONE, None]),
        ([KEPT, THERE, CLONE], [KEPT, THERE, CLONE]),
    ],
)
def test_every_port_is_one_nodes(plugged: list[Plugged], expected: list[Plugged | None]) -> None:
    assert list(assign([A, B, M], plugged).values()) == expected


def test_a_silent_port_is_offered_to_a_missing_node(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = load(PROJECT_ROOT / "examples" / "mnist" / "federation.toml")
    specs = [spec for spec in federation.nodes() if spec.board in ("uno", "megaatmega2560")]
    found = [
        PortInfo("/dev/b", "", "2341:0042"),
        PortInfo("/dev/a", "", "2341:0043"),
        PortInfo("/dev/c", "", "2341:0043"),
    ]
    monkeypatch.setattr(desk, "list_ports", lambda: found)
    made = offers(federation, specs, ["/dev/a", "/dev/b", "/dev/c"])
    where = f"--federation {shlex.quote(str(federation.path))}"
    assert made == {
        "/dev/b": f"coordinator flash megaatmega2560-1 --port /dev/b {where}",
        "/dev/a": f"coordinator flash uno-1 --port /dev/a {where}",
    }
    assert offers(federation, [], ["/dev/a"]) == offers(federation, specs, []) == {}
    assert Path(shlex.split(made["/dev/a"])[-1]).is_file()
