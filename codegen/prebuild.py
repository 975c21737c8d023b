"""What PlatformIO runs before each build: the header for this board and federation, and the flags of our own sources.

SCons executes this file in whatever Python the IDE has, so it needs nothing but the standard library (3.8 or later);
the header is made by the project's own environment, and only when something that it is made from has changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterable  # noqa: UP035  (collections.abc's cannot be subscripted in Python 3.8)

C_FLAGS = ["-std=c99"]
CC_FLAGS = ["-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
SMALL = ("atmelavr",)  # platforms on which size counts for more than speed, as it does for Arduino's own core
SHARD = struct.Struct("<4sIIII")  # as coordinator/data.py has it
NO_LABEL = 65535  # of a proxy image: PROTOCOL_NO_LABEL
SHARD_HEADER = """\
/* {samples} samples and {proxy} proxy images. Generated: do not edit. Without SHARD_ROW the sizes; with it the rows,
 * label (65535 of a proxy image) and bytes. */
#ifndef SHARD_ROW
#define SHARD_SAMPLES {samples}
#define SHARD_PROXY {proxy}
#define SHARD_FEATURES {features}
#define SHARD_CLASSES {classes}
#else
{rows}
#endif
"""
OUTPUTS = ("model.h", "protocol.h")
SOURCE_SUFFIXES = (".c", ".h", ".cpp", ".S", ".ld")


class PrebuildError(Exception):
    """The build cannot go on; one sentence for the user."""


def find_python(root: Path) -> Path:
    """The interpreter that has our packages: the project's `.venv`, or the running one."""
    for name in ("bin/python", "Scripts/python.exe"):
        if (root / ".venv" / name).exists():
            return root / ".venv" / name
    if all(importlib.util.find_spec(name) for name in ("coordinator", "tensorflow")):
        return Path(sys.executable)
    raise PrebuildError(
        f"{root} has no Python environment (.venv), which makes the model's header; run `make setup` there"
    )


def inputs(root: Path, federation: Path) -> list[Path]:
    """Every file that the header is made from: the federation's, the board's, the generator's."""
    files = {federation, root / "boards" / "__init__.py"}
    files.update((root / "boards").glob("*.json"))  # what the smallest board cannot train is frozen on all
    files.update(_named_files(federation))
    files.update((root / "codegen").glob("*.py"))
    files.update((root / "codegen" / "templates").glob("*"))
    files.update(root / "coordinator" / name for name in ("federation.py", "global_model.py"))
    return sorted(path for path in files if path.is_file())


def _named_files(federation: Path) -> Iterable[Path]:
    """Files that a federation file names, by any string in it: older Pythons cannot read TOML. A model may import its
    neighbours, so they count as well."""
    for quoted in re.findall(r"\"([^\"\n]+)\"|'([^'\n]+)'", federation.read_text(encoding="utf-8")):
        path = federation.parent / "".join(quoted)
        if path.is_file():
            yield path
            if path.suffix == ".py":
                yield from path.parent.glob("*.py")


def fingerprint(files: Iterable[Path], root: Path) -> str:
    """SHA-256 over names and contents; line ends do not count, so that a checkout on Windows is the same."""
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        if path.suffix in (*SOURCE_SUFFIXES, ".py", ".json", ".toml", ".j2"):
            content = content.replace(b"\r\n", b"\n")
        name = Path(os.path.relpath(path, root)).as_posix()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def firmware_hash(root: Path) -> int:
    """What HELLO reports: the first 32 bits of the SHA-256 over the firmware's sources, all ports included."""
    sources = [path for path in (root / "firmware").rglob("*") if path.suffix in SOURCE_SUFFIXES]
    return int(fingerprint(sorted(sources), root)[:8], 16)


def generate(root: Path, board: str, federation: Path, out: Path, model: str = "") -> bool:
    """Make `out`/model.h and protocol.h if something that they are made from has changed; True if they were made.

    `model`: the file of a node's own, as the federation file names it.
    """
    if not federation.is_file():
        raise PrebuildError(
            f"no federation file {federation}; give one by TIERFED_FEDERATION or by custom_federation in platformio.ini"
        )
    keys = sorted(path.name for path in (federation.parent / "keys").glob("*.key"))  # who has one, not what they are
    stamp, wanted = out / "inputs.sha256", " ".join([fingerprint(inputs(root, federation), root), *keys, model])
    made = all((out / name).is_file() for name in OUTPUTS)
    if made and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return False
    out.mkdir(parents=True, exist_ok=True)
    python = find_python(root)
    command = [str(python), "-m", "coordinator", "generate", "--board", board]
    command += ["--federation", str(federation), "--out", str(out), *(["--model", model] if model else [])]
    # an IDE's own module path would shadow the environment's packages
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=root, env=clean, capture_output=True)
    if done.returncode:
        message = done.stderr.decode("utf-8", "replace").strip()
        if re.search(r"No module named '?\w+'?$", message):
            raise PrebuildError(f"{python} lacks packages of this project; run `make setup` in {root}")
        raise PrebuildError(message or f"`{' '.join(command)}` ended with exit code {done.returncode}")
    stamp.write_text(wanted, encoding="utf-8")
    return True


def shard_header(shard: bytes, name: str) -> str:
    """Return shard.h of a shard file (coordinator/data.py), for boards that keep their samples in flash."""
    if len(shard) < SHARD.size or shard[:4] != b"TFS2":
        raise PrebuildError(f"TIERFED_SHARD: {name} is no shard; a run leaves one of each node in runs/NAME/shards")
    _, samples, proxy, features, classes = SHARD.unpack_from(shard)
    labels = SHARD.size + (samples + proxy) * features
    if len(shard) != labels + 2 * samples:
        raise PrebuildError(f"TIERFED_SHARD: {name} has {len(shard)} bytes; expected {labels + 2 * samples}")
    rows = []
    for at in range(samples + proxy):
        first, place = SHARD.size + at * features, labels + 2 * at
        label = int.from_bytes(shard[place : place + 2], "little") if at < samples else NO_LABEL
        if at < samples and label >= classes:
            raise PrebuildError(f"TIERFED_SHARD: {name}: sample {at} has label {label}; expected less than {classes}")
        rows.append(f"SHARD_ROW({label}, {','.join(map(str, shard[first : first + features]))})")
    return SHARD_HEADER.format(samples=samples, proxy=proxy, features=features, classes=classes, rows="\n".join(rows))


def place_shard(out: Path, shard: str) -> None:
    """Make `out`/shard.h of a shard file if it has changed; without one there must be none."""
    path = out / "shard.h"
    if not shard:
        if path.exists():
            path.unlink()
        return
    try:
        text = shard_header(Path(shard).read_bytes(), shard)
    except OSError as error:
        raise PrebuildError(f"TIERFED_SHARD: {shard} cannot be read ({error.strerror})") from None
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def place_key(out: Path, key: str) -> None:
    """Make `out`/node_key.h of a key file if it has changed, for its owner alone; without one there must be none."""
    path = out / "node_key.h"
    if not key:
        if path.exists():
            path.unlink()
        return
    try:
        digits = Path(key).read_bytes()
    except OSError as error:
        raise PrebuildError(f"TIERFED_KEY: {key} cannot be read ({error.strerror})") from None
    if not re.fullmatch(rb"[0-9a-fA-F]{64}\r?\n?", digits):
        raise PrebuildError(f"TIERFED_KEY: {key} is no key; expected 64 hexadecimal digits and a newline")
    listed = ",".join(f"0x{byte:02x}" for byte in bytes.fromhex(digits.decode()))
    text = f"/* Generated, and secret. */\n#define NODE_KEY {listed}\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        if path.exists():
            path.unlink()
        with os.fdopen(os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)


def identity_defines(uid: str) -> list[tuple[str, Any]]:
    """The node's unique id, if the build gives it one."""
    if uid and not re.fullmatch(r"[0-9a-fA-F]{16}", uid):
        raise PrebuildError(f"TIERFED_UID: found {uid!r}; expected 16 hexadecimal digits")
    return [("TIERFED_UID", f"0x{uid}")] if uid else []


def link_defines(root: Path, board: str) -> list[tuple[str, Any]]:
    """The link's sizes and rates for a board, and the firmware's hash, as preprocessor definitions."""
    try:
        training = json.loads((root / "boards" / f"{board}.json").read_text(encoding="utf-8"))["training"]
        sizes = [("LINK_MTU", int(training["mtu"])), ("LINK_WINDOW", int(training["window"]))]
        rates = [("LINK_BAUD", int(training["bauds"][0])), ("LINK_BAUD_MAX", int(max(training["bauds"])))]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PrebuildError(f"boards/{board}.json: no usable training.mtu, window and bauds ({error!r})") from None
    return [*sizes, *rates, ("FIRMWARE_HASH", f"0x{firmware_hash(root):08x}UL")]


def samples_in_flash(out: Path) -> bool:
    """Whether the board that `out`/model.h was made for has its samples compiled in."""
    header = (out / "model.h").read_text(encoding="utf-8")
    return re.search(r"^#define MODEL_SOURCE_FLASH 1\b", header, re.MULTILINE) is not None


def sensor_folder(out: Path, federation: Path) -> Path | None:
    """The federation's own code for a sensor, if the samples of this board come from one."""
    header = (out / "model.h").read_text(encoding="utf-8")
    if not re.search(r"^#define MODEL_SOURCE_SENSOR 1\b", header, re.MULTILINE):
        return None
    folder = federation.parent / "sensor"
    if not any(path.suffix in (".c", ".cpp") for path in folder.glob("*")):
        raise PrebuildError(
            f'{federation}: source = "sensor", but {folder} has no .c or .cpp; expected the two functions of '
            "firmware/node/sensor.h there"
        )
    return folder


def configure(env: Any) -> None:
    """Prepare one PlatformIO environment: headers made, flags set for our own sources and for nothing else."""
    if env.IsCleanTarget():
        return
    root, out = Path(env.subst("$PROJECT_DIR")), Path(env.subst("$BUILD_DIR")).resolve() / "generated"
    board = env.get("BOARD") or env.GetProjectOption("custom_board", "")
    federation = (
        root / (os.environ.get("TIERFED_FEDERATION") or env.GetProjectOption("custom_federation", ""))
    ).resolve()
    if not board:
        raise PrebuildError(f"platformio.ini: [env:{env['PIOENV']}] has no board; expected `board` or `custom_board`")
    if generate(root, board, federation, out, os.environ.get("TIERFED_MODEL", "")):
        print(f"Generated {out.relative_to(root) if root in out.parents else out} for {board}")
    place_shard(out, os.environ.get("TIERFED_SHARD", ""))
    key = os.environ.get("TIERFED_KEY", "")
    place_key(out, key)
    optimize = "-Os" if env.subst("$PIOPLATFORM") in SMALL else "-O2"
    defines = [*link_defines(root, board), *identity_defines(os.environ.get("TIERFED_UID", ""))]
    if env.subst("$PIOPLATFORM") in SMALL and samples_in_flash(out):  # which an AVR reads by instructions of its own
        defines.append(("ENGINE_SAMPLES_IN_FLASH", 1))
    if key or env.subst("$PIOPLATFORM") == "native":  # a twin has its key from a file when it starts
        defines.append(("NODE_KEYED", 1))
    sources = Path(env.subst("$PROJECT_SRC_DIR")).resolve()
    sensor = None if env.subst("$PIOPLATFORM") == "native" else sensor_folder(out, federation)  # a twin replays a file
    if env.IsIntegrationDump():  # what an editor's index is made from
        env.Append(CPPPATH=[str(out)], CPPDEFINES=defines)

    def compile_ours(env: Any, node: Any) -> Any:
        path = Path(node.srcnode().get_abspath()).resolve()
        if sources not in path.parents and sensor not in path.parents:
            return node
        strict = path.suffix == ".c"
        made = env.Object(
            node,
            CPPPATH=[str(out), *env.get("CPPPATH", [])],
            CPPDEFINES=[*env.get("CPPDEFINES", []), *defines],
            CFLAGS=[*env.get("CFLAGS", []), *C_FLAGS],
            CCFLAGS=[*env.get("CCFLAGS", []), optimize, *(CC_FLAGS if strict else [])],
        )
        if sensor and path == sources / "node" / "node.c":  # here, because only now the libraries' headers are known
            for objects in env.CollectBuildFiles("$BUILD_DIR/sensor", str(sensor)):
                made += objects
        return made

    env.AddBuildMiddleware(compile_ours)


if "Import" in globals():  # SCons executes this file; everyone else imports it
    Import("env")  # type: ignore[name-defined]  # noqa: F821
    try:
        configure(env)  # type: ignore[name-defined]  # noqa: F821
    except PrebuildError as error:
        sys.stderr.write(f"Error: {error}\n")
        env.Exit(1)  # type: ignore[name-defined]  # noqa: F821
