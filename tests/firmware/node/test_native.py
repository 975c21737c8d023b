"""The native twin: its command line, its wire under ill treatment, and the node under sanitizers."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codegen.protocol import (
    Challenge,
    Commit,
    Encoding,
    ErrorCode,
    Fetch,
    FrameType,
    Hello,
    HelloRequest,
    Proof,
    State,
    Status,
    StatusRequest,
    Train,
)
from coordinator.link.frames import encode
from tests.firmware.conftest import CompileProgram
from tests.firmware.node.fuzz import hostile_stream
from tests.firmware.node.harness import (
    CLASSES,
    FEATURES,
    KEYED,
    NATIVE,
    Build,
    MemoryNode,
    begin_of,
    frame_of,
    refusal,
    setup,
    shard,
    weights,
)
from tests.firmware.node.program import Program

WEIGHTS = weights(299)
# Instrumented code warns of conversions that the code as written does not have.
SANITIZE = ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-conversion")


@pytest.fixture(scope="session")
def program(builds: dict[str, Build], compile_program: CompileProgram) -> Path:
    return compile_program(NATIVE, (KEYED, "-O2", *builds["accumulating"].flags))


@pytest.fixture(scope="session")
def shard_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards") / "node.tfs"
    path.write_bytes(shard())
    return path


GOOD = shard()
BAD_SHARDS = [
    (b"", "not a shard: expected a file of at least 20 bytes"),
    (b"TFS1" + GOOD[4:], "does not begin with TFS2"),
    (GOOD[:-1], f"{len(GOOD) - 1} bytes, expected {len(GOOD)} for its 30 samples"),
    (GOOD + b"\0", f"{len(GOOD) + 1} bytes, expected {len(GOOD)} for its 30 samples"),
    (GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:], "for its 4294967295 samples"),
    (GOOD[:8] + b"\xff\xff\xff\xff" + GOOD[12:], "and 4294967295 proxy images"),
    (GOOD[:8] + b"\0\0\1\0" + GOOD[12:] + bytes(FEATURES << 16), "65536 proxy images, expected 0 to 65535"),
    (GOOD[:12] + b"\x25" + GOOD[13:], f"made for 37 features and 3 classes, this firmware's model has {FEATURES} and"),
    (
        GOOD[:16] + b"\x09" + GOOD[17:],
        f"made for 36 features and 9 classes, this firmware's model has 36 and {CLASSES}",
    ),
    (GOOD[:-2] + b"\x03\0", "sample 29 has label 3, expected less than 3"),
]


@pytest.mark.parametrize(("content", "sentence"), BAD_SHARDS, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_shards_are_refused(program: Path, tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.tfs"
    path.write_bytes(content)
    done = subprocess.run([program, "--shard", path], capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{path}: ") and sentence in done.stderr and done.stderr.count("\n") == 1


BAD_ARGUMENTS = [
    ([], "No samples: expected --shard FILE"),
    (["--shard"], "--shard: expected a value"),
    (["--shard", "absent.tfs"], "absent.tfs: cannot be read: No such file"),
    (["--shard", "/"], "/: not a shard"),
    (["--fast"], "Unknown argument '--fast'"),
    (["--uid", "12", "--shard", "x"], "--uid: found '12', expected 16 hexadecimal digits"),
    (["--uid", "0x00000000000001", "--shard", "x"], "--uid: found '0x00000000000001'"),
    (["--tcp", "65536", "--shard", "x"], "--tcp: found '65536'"),
    (["--tcp", "-1", "--shard", "x"], "--tcp: found '-1'"),
    (["--tcp", "", "--shard", "x"], "--tcp: found ''"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD_ARGUMENTS, ids=[" ".join(a) for a, _ in BAD_ARGUMENTS])
def test_bad_arguments_are_refused(program: Path, arguments: list[str], sentence: str) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and done.stderr.count("\n") == 1


def test_help_names_the_board(program: Path) -> None:
    done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=10, check=True)
    assert "board nrf52_dk (tier full)" in done.stdout and "--shard FILE" in done.stdout


def test_a_taken_port_is_named(program: Path, shard_file: Path) -> None:
    with Program(program, shard_file, "--tcp", "0") as first:
        number = first.port.rpartition(":")[2]
        command = [str(program), "--shard", str(shard_file), "--tcp", number]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 2 and f"--tcp {number}: cannot listen there" in done.stderr


@pytest.mark.parametrize("tcp", [(), ("--tcp", "0")], ids=["pty", "tcp"])
def test_hosts_come_and_go(program: Path, shard_file: Path, tcp: tuple[str, ...]) -> None:
    with Program(program, shard_file, "--uid", "00112233445566AA", *tcp) as twin:
        boots = set()
        for _ in range(3):
            twin.connect()
            assert twin.read(0.05) == []  # it keeps quiet until it is asked
            hello = twin.ask(HelloRequest())
            assert isinstance(hello, Hello) and hello.uid.hex() == "00112233445566aa"
            boots.add(hello.boot)
            twin.disconnect()
        assert len(boots) == 1
        twin.connect()
        twin.ask(setup())
        twin.disconnect()
        twin.connect()
        status = twin.ask(StatusRequest())
        assert isinstance(status, Status) and status.state == State.READY


def test_every_boot_has_its_own_number(program: Path, shard_file: Path) -> None:
    boots, uids = set(), set()
    for _ in range(3):
        with Program(program, shard_file) as twin:
            twin.connect()
            hello = twin.ask(HelloRequest())
            assert isinstance(hello, Hello)
            boots.add(hello.boot)
            uids.add(hello.uid)
    assert len(boots) == 3 and len(uids) == 1


@pytest.mark.parametrize("tcp", [(), ("--tcp", "0")], ids=["pty", "tcp"])
def test_a_host_that_writes_before_it_reads_loses_nothing(
    program: Path, shard_file: Path, tcp: tuple[str, ...]
) -> None:
    request = frame_of(HelloRequest(), 1)
    with Program(program, shard_file, *tcp) as twin:
        twin.connect()
        written, deadline = 0, time.monotonic() + 0.4  # less than the node's patience
        while time.monotonic() < deadline and written < 300 * len(request):
            at = written % len(request)
            written += twin.write(request[at:])
        replies, deadline = 0, time.monotonic() + 5
        while replies < written // len(request) and time.monotonic() < deadline:
            replies += len(twin.read(0.1))
        assert replies == written // len(request) > 100


def test_a_host_that_never_reads_does_not_stop_the_node(program: Path, shard_file: Path) -> None:
    with Program(program, shard_file) as twin:
        twin.connect()
        load(twin, epochs=255)
        for _ in range(500):
            twin.write(frame_of(HelloRequest(), 1))
        twin.send(frame_of(Train(5), 1))
        time.sleep(1.5)
        while twin.read(0.1):
            pass
        status = twin.ask(StatusRequest(), 77)
        assert isinstance(status, Status) and status.state == State.DONE


def load(twin: Program, epochs: int = 2) -> None:
    """Take it to LOADED."""
    twin.ask(setup(epochs=epochs, encoding=Encoding.DELTA_Q8))
    twin.ask(begin_of(WEIGHTS), 9)
    for at in range(0, len(WEIGHTS), 72):
        assert twin.exchange(encode(FrameType.DATA, 9, at // 72, WEIGHTS[at : at + 72]), 9).chunk == at // 72 + 1
    status = twin.ask(Commit(5), 9)
    assert isinstance(status, Status) and status.state == State.LOADED


GOOD_KEYS = [b"0f" * 32, b"0F" * 32 + b"\n", b"0f" * 32 + b"\r\n"]
BAD_KEYS = [b"", b"0f" * 31, b"0f" * 33, b"0f" * 32 + b"\n\n", b"0g" * 32, b"0f" * 32 + b"\0", b"\n" + b"0f" * 32]


@pytest.mark.parametrize("text", GOOD_KEYS)
def test_a_twin_has_the_key_in_a_file(program: Path, shard_file: Path, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "node.key").write_bytes(text)
    with Program(program, shard_file, "--key", str(tmp_path / "node.key")) as twin:
        twin.connect()
        assert refusal(twin.ask(Train(5))) == ErrorCode.UNAUTHENTICATED
        proof = twin.ask(Challenge(bytes(16)))
        assert isinstance(proof, Proof)
        hello = twin.exchange(frame_of(HelloRequest(), 2), 2).payload
        key, nonces = b"\x0f" * 32, bytes(16) + proof.nonce
        assert proof.mac == hashlib.blake2s(b"node" + nonces + hello, key=key, digest_size=16).digest()


@pytest.mark.parametrize("text", [None, *BAD_KEYS])
def test_what_is_no_key_is_refused_and_shown_to_nobody(
    program: Path, shard_file: Path, tmp_path: Path, text: bytes | None
) -> None:
    path = tmp_path / "node.key"
    if text is not None:
        path.write_bytes(text)
    command = map(str, (program, "--shard", shard_file, "--key", path))
    done = subprocess.run(list(command), capture_output=True, text=True, timeout=10, check=False)
    why = "is no key: expected 64 hexadecimal digits" if text is not None else "cannot be read: No such file"
    assert done.returncode == 2 and f"--key {path}: {why}" in done.stderr and "0f0f" not in done.stderr


@pytest.mark.parametrize("flags", [("-O2",), ("-O3", "-march=native"), SANITIZE], ids=["O2", "O3", "sanitized"])
def test_a_round_ends_in_the_same_bits_however_it_was_compiled(
    flags: tuple[str, ...],
    builds: dict[str, Build],
    compile_program: CompileProgram,
    shard_file: Path,
    accumulating: MemoryNode,
) -> None:
    accumulating.bring(State.DONE, WEIGHTS, setup(encoding=Encoding.DELTA_Q8))
    expected = accumulating.ask(Fetch(5, Encoding.DELTA_Q8, 72), 30)
    with Program(compile_program(NATIVE, (KEYED, *flags, *builds["accumulating"].flags)), shard_file) as twin:
        twin.connect()
        load(twin)
        twin.send(frame_of(Train(5), 1))
        while not isinstance(status := twin.ask(StatusRequest(), 50), Status) or status.state != State.DONE:
            pass
        assert twin.ask(Fetch(5, Encoding.DELTA_Q8, 72), 30) == expected


def test_hostile_bytes_break_nothing(
    builds: dict[str, Build], compile_program: CompileProgram, shard_file: Path
) -> None:
    """The whole program at the end of a real wire; tests/fuzz does it to the node alone, in each arithmetic."""
    with Program(compile_program(NATIVE, (KEYED, *SANITIZE, *builds["accumulating"].flags)), shard_file) as twin:
        twin.connect()
        states = set()
        for data in hostile_stream(random.Random("hostile accumulating"), 4000, WEIGHTS):
            if twin.process.poll() is not None:
                pytest.fail(twin.process.stderr.read() if twin.process.stderr else "it died", pytrace=False)
            states |= {frame.payload[0] for frame in twin.send(data) if frame.type == FrameType.STATUS}
        twin.send(b"\0")
        while twin.read(0.3):
            pass
        assert isinstance(twin.ask(HelloRequest(), 255), Hello)
        assert states == set(State)


def test_without_the_key_hostile_bytes_reach_nothing(
    builds: dict[str, Build], compile_program: CompileProgram, shard_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "node.key").write_bytes(GOOD_KEYS[0])
    sanitized = compile_program(NATIVE, (KEYED, *SANITIZE, *builds["accumulating"].flags))
    with Program(sanitized, shard_file, "--key", str(tmp_path / "node.key")) as twin:
        twin.connect()
        frames = []
        for data in hostile_stream(random.Random("hostile keyed"), 1500, WEIGHTS):
            frames += twin.send(data)
        twin.send(b"\0")
        while more := twin.read(0.3):
            frames += more
        assert {frame.payload[0] for frame in frames if frame.type == FrameType.STATUS} == {State.IDLE}
        assert {FrameType.HELLO, FrameType.PROOF, FrameType.ERROR} <= {frame.type for frame in frames}
        assert not any(frame.type in (FrameType.ACK, FrameType.DATA, FrameType.OFFER) for frame in frames)
        assert isinstance(twin.ask(HelloRequest(), 255), Hello)


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux can end a child with its parent")
def test_it_dies_with_its_parent(program: Path, shard_file: Path) -> None:
    starter = (
        "import subprocess, sys; twin = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE);"
        "twin.stdout.readline(); print(twin.pid)"
    )
    command = [sys.executable, "-c", starter, str(program), "--shard", str(shard_file)]
    pid = int(subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and is_alive(pid):
        time.sleep(0.02)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that is dead but not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
