"""The messages: Python codec and C header are made from one declaration and agree, field by field."""

from __future__ import annotations

import ctypes
import dataclasses
import subprocess
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.protocol import (
    BY_TYPE,
    MESSAGES,
    MTU_MAX,
    MTU_MIN,
    PROTOCOL_VERSION,
    Encoding,
    ErrorCode,
    FrameType,
    Hello,
    Kernel,
    Log,
    Message,
    ProtocolError,
    Setup,
    State,
    Status,
)
from codegen.protocol_header import message_name, protocol_header
from tests.firmware.conftest import STRICT, require

DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
_CTYPES: dict[str, Any] = {"B": ctypes.c_uint8, "H": ctypes.c_uint16, "I": ctypes.c_uint32, "f": ctypes.c_float}
_VALUES = {
    "B": st.integers(0, 2**8 - 1),
    "H": st.integers(0, 2**16 - 1),
    "I": st.integers(0, 2**32 - 1),
    "f": st.floats(width=32, allow_nan=False),
}


def _codes(message: type[Message]) -> dict[str, tuple[type, str]]:
    hints = get_type_hints(message, include_extras=True)
    return {field.name: get_args(hints[field.name]) for field in dataclasses.fields(message)}


def _fixed(message: type[Message]) -> dict[str, tuple[type, str]]:
    return {name: kind for name, kind in _codes(message).items() if not kind[1].startswith("*")}


def _value(kind: tuple[type, str]) -> st.SearchStrategy[Any]:
    python, code = kind
    if code in _VALUES:
        return _VALUES[code]
    if code == "*s":
        return st.text(st.characters(exclude_categories=("C", "Z")), max_size=60)
    if code.startswith("*"):
        return st.lists(_VALUES[code[1:]], max_size=20).map(tuple)
    size = int(code[:-1])
    if python is bytes:
        return st.binary(min_size=size, max_size=size)
    return st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=size)


def _any(message: type[Message]) -> st.SearchStrategy[Message]:
    return st.builds(message, **{name: _value(kind) for name, kind in _codes(message).items()})


def _structure(message: type[Message]) -> type[ctypes.Structure]:
    members = [
        (name, _CTYPES[code] if code in _CTYPES else ctypes.c_ubyte * int(code[:-1]))
        for name, (_, code) in _fixed(message).items()
    ]
    return type(message.__name__, (ctypes.Structure,), {"_fields_": members})


WITH_STRUCT = [message for message in MESSAGES if _fixed(message)]
anything = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)


@pytest.fixture(scope="session")
def header(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds protocol.h and wrappers.c, which makes its static functions callable."""
    folder = tmp_path_factory.mktemp("protocol")
    (folder / "protocol.h").write_text(protocol_header())
    wrappers = ['#include "protocol.h"']
    for name in map(message_name, WITH_STRUCT):
        wrappers += [
            f"bool read_{name}(const uint8_t *p, uint8_t n, void *out);",
            f"bool read_{name}(const uint8_t *p, uint8_t n, void *out) {{ return message_{name}_read(p, n, out); }}",
            f"uint8_t write_{name}(uint8_t *p, const void *in);",
            f"uint8_t write_{name}(uint8_t *p, const void *in) {{ return message_{name}_write(p, in); }}",
        ]
    for prefix, c_type in (("labels_counts", "uint16_t"), ("adjust_values", "float")):
        wrappers += [
            f"uint8_t copy_{prefix}(const uint8_t *from, uint8_t n, uint8_t *to);",
            f"uint8_t copy_{prefix}(const uint8_t *from, uint8_t n, uint8_t *to) {{",
            f"    const uint8_t count = message_{prefix}_count(n);",
            "    for (uint8_t i = 0; i < count; i++) {",
            f"        const {c_type} value = message_{prefix}_get(from, i);",
            f"        message_{prefix}_set(to, i, value);",
            "    }",
            "    return count;",
            "}",
        ]
    (folder / "wrappers.c").write_text("\n".join(wrappers) + "\n")
    return folder


@pytest.fixture(scope="session")
def library(header: Path) -> ctypes.CDLL:
    target = header / "wrappers.so"
    flags = ("-O1", "-shared", "-fPIC", "-fsanitize=undefined", "-fno-sanitize-recover")
    subprocess.run([require("gcc"), *STRICT, *flags, header / "wrappers.c", "-o", target], check=True)
    return ctypes.CDLL(str(target))


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", ("-O3",)), ("avr-gcc", ("-Os", "-mmcu=atmega2560")), ("arm-none-eabi-gcc", ("-Os", "-mcpu=cortex-m4"))],
)
def test_header_compiles_without_warnings(header: Path, compiler: str, flags: tuple[str, ...]) -> None:
    files = ("-c", str(header / "wrappers.c"), "-o", str(header / f"{compiler}.o"))
    subprocess.run([require(compiler), *STRICT, *flags, *files], check=True)


def test_every_frame_has_its_own_number_and_message() -> None:
    assert len(BY_TYPE) == len(MESSAGES)
    assert {FrameType(number) for number in BY_TYPE} == set(FrameType) - {FrameType.DATA}


def test_hello_fits_the_smallest_frame() -> None:
    blank = Hello(PROTOCOL_VERSION, 0, 0, 0, 0, bytes(8), 0, 0, 0, 0, 0, 0, 0, 0, "", "")
    assert len(blank.encode()) == MTU_MIN <= MTU_MAX


@anything
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_python_round_trip(message: type[Message], data: st.DataObject) -> None:
    sent = data.draw(_any(message))
    assert message.decode(sent.encode()) == sent


@pytest.mark.parametrize("message", WITH_STRUCT, ids=lambda message: message.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_c_reads_and_writes_what_python_does(library: ctypes.CDLL, message: type[Message], data: st.DataObject) -> None:
    sent = data.draw(_any(message))
    payload = sent.encode()
    record = _structure(message)()
    assert getattr(library, f"read_{message_name(message)}")(payload, len(payload), ctypes.byref(record))
    for name, (python, _) in _fixed(message).items():
        expected = getattr(sent, name)
        got = getattr(record, name)
        if python is str:
            assert bytes(got).rstrip(b"\0") == expected.encode()
        else:
            assert (bytes(got) if python is bytes else got) == expected
    out = ctypes.create_string_buffer(256)
    written = getattr(library, f"write_{message_name(message)}")(out, ctypes.byref(record))
    assert out.raw[:written] == payload[:written]


@pytest.mark.parametrize(("name", "width"), [("labels_counts", 2), ("adjust_values", 4)])
@settings(max_examples=25, deadline=None)
@given(elements=st.binary(max_size=60))
def test_c_copies_tails(library: ctypes.CDLL, name: str, width: int, elements: bytes) -> None:
    payload = b"\0\0" + elements[: len(elements) // width * width]
    out = ctypes.create_string_buffer(len(payload))
    assert getattr(library, f"copy_{name}")(payload, len(payload), out) == len(payload[2:]) // width
    assert out.raw[2:] == payload[2:]


@anything
@pytest.mark.parametrize("length", [0, 1, 3, 17, 248])
def test_wrong_length_is_refused_alike(library: ctypes.CDLL, message: type[Message], length: int) -> None:
    payload = bytes(length)
    try:
        message.decode(payload)
        accepted = True
    except ProtocolError:
        accepted = False
    if message in WITH_STRUCT:
        out = ctypes.create_string_buffer(256)
        assert bool(getattr(library, f"read_{message_name(message)}")(payload, length, out)) == accepted


def test_refusal_names_message_and_sizes() -> None:
    with pytest.raises(ProtocolError, match="STATUS of 3 bytes; expected 25"):
        Status.decode(b"abc")


def test_text_that_is_not_utf8_is_shown_all_the_same() -> None:
    assert Log.decode(b"caf\xe9").text == "caf\ufffd"


def test_text_cannot_command_a_terminal() -> None:
    assert Log.decode(b"\x1b[2Jgone\r\n").text == "\ufffd[2Jgone\ufffd\ufffd"
    hello = Hello(PROTOCOL_VERSION, 248, 8, 7, 1, bytes(8), 1, 1, 1, 0, 1, 0, 1, 0, "\x07uno", "\x9bmicro")
    assert (Hello.decode(hello.encode()).board, Hello.decode(hello.encode()).tier) == ("\ufffduno", "\ufffdmicro")


def test_numbers_are_little_endian_without_gaps() -> None:
    setup = Setup(0x0102, 3, 1.0, momentum=0.0, epochs=4, batch=5, encoding=6, nested=1, shift=2)
    assert setup.encode().hex() == "0201030000000000803f0000000004050601000000000002"


def _documented(message: type[Message]) -> str:
    """Return the row that docs/protocol.md must have."""
    words = {"B": "u8", "H": "u16", "I": "u32", "f": "f32", "s": "text"}
    described = []
    for name, (python, code) in _codes(message).items():
        if code.startswith("*"):
            described.append(f"`{name}` {words[code[1:]]}…")
        elif code.endswith("s"):
            described.append(f"`{name}` {'text' if python is str else 'bytes'}[{code[:-1]}]")
        else:
            described.append(f"`{name}` {words[code]}")
    return f"| `{message.type.name}` | 0x{message.type:02X} | {', '.join(described) or '–'} |"


@anything
def test_the_page_has_every_message_as_it_is(message: type[Message]) -> None:
    assert _documented(message) in DOCUMENTATION.splitlines()


@pytest.mark.parametrize("value", [*State, *Encoding, *Kernel, *ErrorCode], ids=lambda value: value.name)
def test_the_page_has_every_number(value: State | Encoding | Kernel | ErrorCode) -> None:
    assert f"| {value.name} | {value.value} |" in DOCUMENTATION
