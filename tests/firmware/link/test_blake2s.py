"""Keyed BLAKE2s: RFC 7693's own numbers, Python's hashlib for the rest, and what an AVR pays for it."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from hashlib import blake2s
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import atmega
from benchmarks.images import ATMEGA328P, ATMEGA2560, Image, Run, ToolError, link
from tests.firmware.conftest import CompileProgram, CompileShared, require
from tests.firmware.link.clink import LINK

SOURCE = LINK / "blake2s.c"
CHIP = (Path(__file__).with_name("blake2s_avr.c"), SOURCE, LINK / "blake2s_avr.S")
Hash = Callable[..., bytes]  # of pieces of data, a key and the length of the digest


@pytest.fixture(scope="module")
def library(compile_shared: CompileShared) -> ctypes.CDLL:
    return compile_shared((SOURCE,), ("-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"))


@pytest.fixture(scope="module")
def hashed(library: ctypes.CDLL) -> Hash:
    library.blake2s_update.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]

    def run(*pieces: bytes, key: bytes = b"", size: int = 32) -> bytes:
        state, out = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
        library.blake2s_init(state, size, key, len(key))
        for piece in pieces:
            library.blake2s_update(state, piece, len(piece))
        library.blake2s_final(state, out)
        assert out.raw[size:] == bytes(32 - size)
        return out.raw[:size]

    return run


def test_appendix_b(hashed: Hash) -> None:
    assert hashed(b"abc").hex() == "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"


def sequence(length: int) -> bytes:
    """Return the bytes that appendix E makes of a length."""
    a, b, out = 0xDEAD4BAD * length & 0xFFFFFFFF, 1, bytearray()
    for _ in range(length):
        a, b = b, a + b & 0xFFFFFFFF
        out.append(b >> 24)
    return bytes(out)


def test_appendix_e(hashed: Hash) -> None:
    digests = [
        hashed(sequence(length), key=key, size=size)
        for size in (16, 20, 28, 32)
        for length in (0, 3, 64, 65, 255, 1024)
        for key in (b"", sequence(size))
    ]
    assert hashed(*digests).hex() == "6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=6), st.binary(max_size=32), st.integers(1, 32))
def test_any_input_in_any_pieces(hashed: Hash, pieces: list[bytes], key: bytes, size: int) -> None:
    assert hashed(*pieces, key=key, size=size) == blake2s(b"".join(pieces), key=key, digest_size=size).digest()


def test_touches_nothing_beside_what_it_is_given(compile_program: CompileProgram) -> None:
    flags = ("-O1", "-g", f"-I{LINK}", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = compile_program((Path(__file__).with_name("blake2s_cases.c"), SOURCE), flags)
    cases = [
        (size, sequence(keyed), sequence(length), piece)
        for size in (1, 16, 32)
        for keyed in (0, 1, 32)
        for length in (0, 1, 63, 64, 65, 128, 129, 255)
        for piece in (1, 63, 64, 65, 255)
    ]
    asked = b"".join(bytes([size, len(key), len(data), piece]) + key + data for size, key, data, piece in cases)
    done = subprocess.run([program], input=asked, capture_output=True, check=True)
    assert done.stdout == b"".join(blake2s(data, key=key, digest_size=size).digest() for size, key, data, _ in cases)


@pytest.mark.parametrize("at", range(16))
def test_compares_every_byte(library: ctypes.CDLL, at: int) -> None:
    library.blake2s_equal.restype = ctypes.c_bool
    mac = sequence(16)
    wrong = mac[:at] + bytes([mac[at] ^ 1]) + mac[at + 1 :]
    assert library.blake2s_equal(mac, mac, 16) and not library.blake2s_equal(mac, wrong, 16)
    assert library.blake2s_equal(mac, wrong, at)


# On the chip


@pytest.fixture(scope="module", params=[ATMEGA328P, ATMEGA2560], ids=lambda target: target.name)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    try:
        return link(CHIP, request.param, tmp_path_factory.mktemp("blake2s"))
    except ToolError as error:
        pytest.fail(str(error), pytrace=False)


def on_chip(image: Image, data: bytes, key: bytes, size: int, piece: int = 64) -> tuple[bytes, Run]:
    """Return the digest and what it took."""
    request = len(data).to_bytes(2, "little") + bytes([size, len(key), piece])
    memory = request + key.ljust(32, b"\0") + bytes(32) + data.ljust(512, b"\0")
    run = atmega.call(image, memory, [0], image.path.parent)
    return run.weights[37 : 37 + size], run


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 128, 129, 500])
def test_a_chip_hashes_alike(image: Image, length: int) -> None:
    for key, size, piece in ((b"", 32, 64), (sequence(32), 16, 64), (sequence(5), 1, 13)):
        digest, _ = on_chip(image, sequence(length), key, size, piece)
        assert digest == blake2s(sequence(length), key=key, digest_size=size).digest()


def test_a_chip_hashes_a_block_in_time(image: Image) -> None:
    short, long = (on_chip(image, sequence(length), sequence(32), 16)[1] for length in (64, 448))
    assert (long.cycles - short.cycles) / 6 < 20_000  # 1.25 ms at 16 MHz
    assert long.stack < 230  # state, vector, registers, and what calls it


def test_takes_little_flash(compile_program: CompileProgram) -> None:
    objects = [compile_program((path,), ("-Os", "-mmcu=atmega328p", "-c"), "avr-gcc") for path in CHIP[1:]]
    sizes = subprocess.run([require("avr-size"), *objects], capture_output=True, text=True, check=True).stdout
    assert sum(int(line.split()[0]) for line in sizes.splitlines()[1:]) < 1250
