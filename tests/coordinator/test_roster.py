"""Who stands for which node of the federation file."""

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import boards
from codegen.protocol import PROTOCOL_VERSION, Hello
from coordinator import roster
from coordinator.connection import Found, rates_of
from coordinator.errors import FirmwareMismatch
from coordinator.federation import NodeSpec
from coordinator.keys import NodeKey
from coordinator.link.errors import AuthenticationError, LinkError
from coordinator.link.session import Session
from coordinator.roster import check, check_trust, check_unique, flash_command, match, named_uid, rebuild_command
from tests.coordinator.test_rounds import plan

FEDERATION = Path("/home/me/f.toml")
NODE = NodeSpec("a", "esp32dev", None)


def found(uid: str, board: str = "esp32dev", port: str = "/dev/ttyUSB0", **changes: object) -> Found:
    made = plan("expanded")
    fields: dict[str, object] = {
        "protocol": PROTOCOL_VERSION, "mtu": 74, "window": 8, "encodings": 1, "boot": 1, "proxy": 0,
        "uid": bytes.fromhex(uid),
        "firmware": roster.sources_hash(), "model": made.model_hash, "samples": 10, "batch": 1, "kernel": 0,
        "parameters": made.sub_model.graph.parameters, "source": 0, "board": board, "tier": "expanded",
    } | changes  # fmt: skip
    return Found(port, cast(Session, None), Hello(**fields))  # type: ignore[arg-type]


def uid(number: int) -> str:
    return f"{number:016x}"


def test_the_uid_of_a_twin_is_documented() -> None:
    assert named_uid("esp32dev-1") == hashlib.blake2s(b"esp32dev-1", digest_size=8).hexdigest()


A, B, C = (NodeSpec(name, "esp32dev", None) for name in ("a", "b", "c"))
NAMED = NodeSpec("named", "esp32dev", uid(9))
MEGA = NodeSpec("mega", "megaatmega2560", None)
MATCHES = [
    ("the lowest id first", [A, B], [uid(2), uid(1)], {"a": uid(1), "b": uid(2)}, []),
    ("a uid beats the order", [A, NAMED], [uid(9), uid(10)], {"a": uid(10), "named": uid(9)}, []),
    ("a uid that is absent", [NAMED], [uid(1)], {"named": None}, [uid(1)]),
    ("a twin by its name", [A, B], [named_uid("b"), uid(1)], {"a": uid(1), "b": named_uid("b")}, []),
    ("another board", [MEGA], [uid(1)], {"mega": None}, [uid(1)]),
    ("more than are listed", [A], [uid(1), uid(2)], {"a": uid(1)}, [uid(2)]),
    ("fewer than are listed", [A, B, C], [uid(1)], {"a": uid(1), "b": None, "c": None}, []),
]


@pytest.mark.parametrize(("_", "specs", "uids", "expected", "left"), MATCHES, ids=[case[0] for case in MATCHES])
def test_matching(
    _: str, specs: list[NodeSpec], uids: list[str], expected: dict[str, str | None], left: list[str]
) -> None:
    boards_there = [found(each) for each in uids]
    matches, strangers = match(specs, boards_there)
    assert {spec.name: each.uid if each else None for spec, each in matches} == expected
    assert [spec for spec, _ in matches] == specs
    assert [each.uid for each in strangers] == left


def test_one_id_on_two_ports_is_refused() -> None:
    check_unique([found(uid(1)), found(uid(2))])
    with pytest.raises(LinkError, match=f"/dev/ttyUSB0 and /dev/ttyACM1: both say they are {uid(1)}"):
        check_unique([found(uid(1)), found(uid(1), port="/dev/ttyACM1")])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"board": "esp32-c3-devkitm-1"}, "is built for esp32-c3-devkitm-1, the federation file says esp32dev"),
        ({"kernel": 1}, "its firmware trains in fixed, this federation's plan for esp32dev in f32"),
        ({"kernel": 9}, "its firmware trains in 9, this federation's plan for esp32dev in f32"),
        ({"source": 1}, "its firmware was built for samples from stream, the federation file says flash"),
        ({"source": 9}, "its firmware was built for samples from 9, the federation file says flash"),
        ({"model": 0xBAD}, f"holds model 00000bad (tier expanded, 131 parameters), this federation's is "
         f"{plan('expanded').model_hash:08x} (tier expanded, 131)"),
        ({"proxy": 7}, "its firmware holds 7 proxy images, this federation's plan for esp32dev 0; "),
        ({"parameters": 7}, "(tier expanded, 7 parameters)"),
        ({"firmware": 0xBAD}, "its firmware is 00000bad, built from other sources than these "
         f"({roster.sources_hash():08x})"),
    ],
)  # fmt: skip
def test_other_firmware_is_refused_with_both_sides_named(changes: dict[str, object], sentence: str) -> None:
    check(found(uid(1)), plan("expanded"), FEDERATION, NODE)
    with pytest.raises(FirmwareMismatch) as refusal:
        check(found(uid(1), **changes), plan("expanded"), FEDERATION, NODE)  # type: ignore[arg-type]
    assert sentence in str(refusal.value)
    assert str(refusal.value).endswith(f"rebuild it: `{flash_command(FEDERATION, 'a', found(uid(1)).port)}`")


@pytest.mark.parametrize("port", ["/dev/pts/7", "socket://127.0.0.1:9000"])
def test_a_twin_is_rebuilt_otherwise(port: str) -> None:
    assert rebuild_command(port, FEDERATION, NODE).endswith("pio run -e native_esp32dev` and start it again")
    own = replace(NODE, model="mlp.py")
    assert "`TIERFED_FEDERATION='/home/my files/f.toml' TIERFED_MODEL=mlp.py pio" in rebuild_command(
        port, Path("/home/my files/f.toml"), own
    )


@pytest.mark.parametrize(("port", "where"), [("/dev/ttyUSB0", "--port /dev/ttyUSB0 "), ("socket://10.0.0.7:9000", "")])
def test_a_board_is_flashed_as_its_node(port: str, where: str) -> None:
    assert flash_command(Path("/my/f.toml"), "a-1", port) == f"coordinator flash a-1 {where}--federation /my/f.toml"


KEYED, KEY = found(named_uid("a")), NodeKey("a", bytes(32), "coordinator flash a")
TRUST = [
    ("a cable", KEYED, False, {}, False, None),
    ("a network", replace(KEYED, port="socket://10.0.0.7:9000"), False, {}, False,
     "socket://10.0.0.7:9000: a has no key, so anybody could answer there in its place; give it one with "
     "`coordinator keys new a` and flash it, or trust this network with --insecure"),
    ("this machine", replace(KEYED, port="socket://127.0.0.1:9000"), False, {}, False, "a has no key"),
    ("another way to write it", replace(KEYED, port="RFC2217://10.0.0.7:9000"), False, {}, False, "a has no key"),
    ("a trusted network", replace(KEYED, port="socket://10.0.0.7:9000"), False, {}, True, None),
    ("a network and a key", replace(KEYED, port="socket://10.0.0.7:9000"), True, {named_uid("a"): KEY}, False, None),
    ("another board in place of one with a key", found(uid(3)), False, {named_uid("a"): KEY}, True,
     f"/dev/ttyUSB0: {uid(3)} is no board of a, which has a key; flash it with that: `coordinator flash a`"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("board", "authenticated", "keys", "insecure", "words"), [case[1:] for case in TRUST], ids=[c[0] for c in TRUST]
)
def test_who_is_trusted(
    board: Found, authenticated: bool, keys: dict[str, NodeKey], insecure: bool, words: str | None
) -> None:
    there = replace(board, session=cast(Session, SimpleNamespace(authenticated=authenticated)))
    if words is None:
        check_trust(there, A, keys, insecure)
        return
    with pytest.raises(AuthenticationError) as refusal:
        check_trust(there, A, keys, insecure)
    assert words in str(refusal.value)


def test_boards_are_greeted_as_they_boot_and_then_as_a_run_may_have_left_them() -> None:
    kinds = [boards.load(name) for name in ("megaatmega2560", "esp32dev", "uno_r4_minima")]
    assert rates_of(kinds) == [115200, 250000, 1000000, 500000, 921600]
    assert rates_of(kinds[:1]) == [250000, 500000]
