"""The image of one node: its tier, its samples and its id compiled in, as it is flashed or run in an emulator.

Images of one board and model are built in one folder, one after the other, so that each compiles no more than what
differs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from codegen.planner import Plan
from coordinator import platformio
from coordinator.errors import ToolchainError
from coordinator.federation import Federation, NodeSpec
from coordinator.keys import key_file, load_key
from coordinator.roster import node_uid


class Held(NamedTuple):
    """How many of its samples, and of the proxy images, a node has in its image: the first ones of both."""

    samples: int
    proxy: int = 0


def images_held(federation: Federation, plans: Mapping[str, Plan]) -> dict[str, Held]:
    """Return what each node whose samples are not streamed has in its image: as much as its board has room for. A
    sensor brings its samples itself."""
    most = federation.data.samples_per_node
    specs = [spec for spec in federation.nodes() if spec.source != "stream"]
    return {spec.name: Held(min(most, plans[spec.kind].samples_in_flash), plans[spec.kind].proxy) for spec in specs}


def build_image(federation: Federation, spec: NodeSpec, shard: Path, folder: Path | None = None) -> Path:
    """Build a node's image with the samples of `shard`; return the ELF file, a copy that later builds leave alone.

    `folder` is where PlatformIO builds (None: the project's .pio). Raises ToolchainError with what the build said.
    """
    with platformio.workspace(folder, spec.own) as place:
        what = f"the image of {spec.name} could not be built"
        platformio.run(what, [spec.board], place, _variables(federation, spec, shard))
        built = built_image(place, spec.board)
        image = place / "images" / f"{federation.name}-{federation.digest[:8]}" / f"{spec.name}.elf"
        image.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(built, image)
    return image


def built_image(place: Path, board: str) -> Path:
    """Return the ELF file that PlatformIO built last for a board in the workspace `place`. Raises ToolchainError."""
    folder = place / "build" / board
    made = [path for path in folder.glob("*.elf") if path.stem in ("firmware", "program")]
    if not made:
        raise ToolchainError(f"{folder}: PlatformIO left no image; expected firmware.elf")
    return max(made, key=lambda path: path.stat().st_mtime)


def upload_image(federation: Federation, spec: NodeSpec, shard: Path, port: str, folder: Path | None = None) -> None:
    """Build a node's image and upload it to the board on `port`. Raises ToolchainError with what PlatformIO said."""
    with platformio.workspace(folder, spec.own) as place:
        what = f"{port}: {spec.name} could not be flashed"
        arguments = ["--target", "upload", "--upload-port", port]
        platformio.run(what, [spec.board], place, _variables(federation, spec, shard), arguments)


def _variables(federation: Federation, spec: NodeSpec, shard: Path) -> dict[str, str]:
    """Return what codegen/prebuild.py reads. Raises KeyFileError."""
    holds = spec.source == "flash" or (spec.source == "sensor" and federation.proxy.images)
    key = key_file(federation, spec.name)
    if key is not None:
        load_key(key)  # says what is wrong with it better than a build
    return {
        "TIERFED_FEDERATION": str(federation.path),
        "TIERFED_SHARD": str(shard.absolute()) if holds else "",
        "TIERFED_UID": node_uid(spec),
        "TIERFED_KEY": str(key or ""),
        "TIERFED_MODEL": spec.model or "",
    }
