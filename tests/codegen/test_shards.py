"""What a shard takes in flash, against what the assembler makes of it."""

import re
import subprocess
from pathlib import Path

import pytest

import boards
from boards import PROJECT_ROOT
from codegen.prebuild import SHARD, shard_header
from codegen.shards import BLOCK, samples_that_fit, shard_bytes

COMMON = PROJECT_ROOT / "firmware" / "ports" / "common"


@pytest.mark.parametrize(
    ("board", "features", "samples"),
    [
        ("uno", 784, 11),
        ("uno", 64, 1),
        ("megaatmega2560", 784, 1),
        ("megaatmega2560", 784, 5),
        ("megaatmega2560", 784, 6),
        ("megaatmega2560", 784, 281),
        ("megaatmega2560", 4096, 3),
        ("megaatmega2560", 3, 1366),
    ],
)
def test_a_shard_takes_what_the_assembler_makes_of_it(board: str, features: int, samples: int, tmp_path: Path) -> None:
    rows = SHARD.pack(b"TFS2", samples, 0, features, 2) + bytes(samples * (features + 2))
    (tmp_path / "shard.h").write_text(shard_header(rows, "shard"))
    known = boards.load(board)
    command = ["avr-gcc", f"-mmcu={known.mcu}", f"-I{tmp_path}", "-c", str(COMMON / "shard.S"), "-o", "shard.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    listing = subprocess.run(
        ["avr-objdump", "-h", "shard.o"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"\.text\.shard +([0-9a-f]+) .* 2\*\*(\d+)", listing)
    assert found
    size, alignment = int(found[1], 16), 1 << int(found[2])
    assert 0 <= shard_bytes(known, features, samples) - (size + alignment - 1) <= 2


@pytest.mark.parametrize("board", ["uno", "megaatmega2560", "nrf52_dk"])
@pytest.mark.parametrize("features", [1, 784, 4096])
@pytest.mark.parametrize("room", [-5, 0, 800, 8192, 100_000])
def test_no_sample_more_would_fit(board: str, features: int, room: int) -> None:
    known = boards.load(board)
    most = samples_that_fit(known, features, room)
    assert shard_bytes(known, features, most) <= max(0, room) < shard_bytes(known, features, most + 1)


def test_a_sample_larger_than_a_block_fits_no_large_avr() -> None:
    assert samples_that_fit(boards.load("megaatmega2560"), BLOCK + 1, 200_000) == 0
    assert samples_that_fit(boards.load("uno"), BLOCK + 1, 10_000) == 2


def test_the_block_is_the_ports() -> None:
    header = (COMMON / "shard_place.h").read_text(encoding="utf-8")
    assert re.findall(r"#define SHARD_BLOCK (\d+)", header) == [str(BLOCK)]
