"""A small federation of real twins: an easy data set, a model that three boards hold at two widths, one of them in
fixed point."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coordinator import emulation, federation, runs
from coordinator.emulation import Twins
from coordinator.events import Event, Observer
from coordinator.federation import Federation
from coordinator.results import Summary
from simulation.world import MODEL, data

SETTINGS = """
name = "small"
seed = {seed}
[model]
path = "{model}"
[tiers]
wide = 1.0
half = 0.5
narrow = 0.25
[data]
path = "data.npz"
samples_per_node = {samples}
split = "{split}"
validation = {validation}
[training]
rounds = {rounds}
batch = 4
learning_rate = {rate}
{training}
[aggregation]
select = "{select}"
min_nodes = {min_nodes}
[link]
encoding = "{encoding}"
"""
NODES = {
    "mixed": """
[[nodes]]
board = "megaatmega2560"
[[nodes]]
board = "esp32dev"
count = 2
[[nodes]]
board = "uno_r4_minima"
""",
    "fixed": """
[[nodes]]
board = "megaatmega2560"
count = 2
""",
    "chips": """
[[nodes]]
board = "uno"
[[nodes]]
board = "megaatmega2560"
[[nodes]]
board = "nrf52_dk_bare"
[[nodes]]
board = "nrf52840_dk_bare"
""",
}
SOURCES = """
[[nodes]]
board = "megaatmega2560"
source = "{}"
[[nodes]]
board = "esp32dev"
source = "{}"
[[nodes]]
board = "uno_r4_minima"
source = "{}"
"""
NODES |= {"flash": SOURCES.format("flash", "flash", "flash"), "sources": SOURCES.format("sensor", "stream", "flash")}
FILE = SETTINGS + NODES["mixed"]
DEFAULTS = {
    "seed": 1, "model": "model.py", "samples": 60, "split": "iid", "rounds": 2, "select": "prefix", "min_nodes": 2,
    "encoding": "auto", "rate": 0.1, "training": "", "validation": 0,
    "nodes": "mixed",
}  # fmt: skip


@dataclass
class World:
    """A folder with the model and the data, and the twins' programs; shared by all tests of a session."""

    folder: Path
    programs: dict[str, Path] = field(default_factory=dict)

    def describe(self, **changes: object) -> Federation:
        """Return the federation with these keys of DEFAULTS changed."""
        values = DEFAULTS | changes
        name = re.sub(r"[^a-z0-9-]", "_", "-".join(str(value) for value in values.values()))
        text = SETTINGS.format_map(values) + NODES[str(values["nodes"])]
        return federation.load(write(self.folder / f"{name}.toml", text.encode()))

    def run(
        self,
        folder: Path,
        watch: Callable[[Twins], Observer] | None = None,
        resume: bool = False,
        **changes: object,
    ) -> tuple[Summary, list[Event]]:
        """Run on fresh twins; `watch` is given them and returns an observer. Returns the summary and all events."""
        described, events = self.describe(**changes), list[Event]()

        async def play() -> Summary:
            async with Twins(described, self.programs, folder / "shards") as twins:
                watcher = watch(twins) if watch else None

                def observe(event: Event) -> None:
                    events.append(event)
                    if watcher:
                        watcher(event)

                return await runs.run(described, twins.ports, folder, resume=resume, observer=observe)

        return asyncio.run(play()), events


def make(folder: Path) -> World:
    """Write the model and the data, and build the twins; quick if all that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "model.py", MODEL.format(hidden=64).encode())
    write(folder / "other.py", MODEL.format(hidden=60).encode())
    if not (folder / "data.npz").exists():
        temporary = folder / "data.tmp.npz"
        np.savez(temporary, **data())  # type: ignore[arg-type]
        temporary.replace(folder / "data.npz")
    world = World(folder)
    world.programs = emulation.build(world.describe(), folder / "pio")
    return world


def write(path: Path, content: bytes) -> Path:
    """Write a file unless it says that already: a changed file would be built anew."""
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)
    return path
