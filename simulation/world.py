"""A federation of three unlike boards, small enough that a whole run of it, faults included, takes a moment."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

import boards
from codegen.prebuild import fingerprint, firmware_hash, inputs
from coordinator import federation
from coordinator.joining import joiner
from coordinator.results import Inputs, load
from coordinator.roster import assemble, keyring, node_uid
from coordinator.rounds import run_round
from coordinator.runs import round_settings
from coordinator.shares import deal
from coordinator.state import State
from simulation.cable import Cable
from simulation.clock import run_virtually
from simulation.faults import Extent, Fault
from simulation.node import MEMORY_PORT, SimulatedNode, compile_node
from simulation.play import Ending, Play, Show, ignore

MODEL = """
import keras

def build():
    layers = keras.layers
    return keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Conv2D(4, 3, strides=2, padding="same", name="conv"),
        layers.LeakyReLU(negative_slope=0.1),
        layers.Flatten(),
        layers.Dense({hidden}, name="hidden"),
        layers.LeakyReLU(negative_slope=0.1),
        layers.Dense(4, activation="softmax", name="logits"),
    ], name="small")
"""
FEDERATION = """
name = "simulated"
seed = 1
[model]
path = "model.py"
[tiers]
wide = 1.0
half = 0.5
[data]
path = "data.npz"
samples_per_node = 8
[training]
rounds = 2
batch = 4
learning_rate = 0.1
[aggregation]
min_nodes = 2
[[nodes]]
board = "megaatmega2560"
[[nodes]]
board = "esp32dev"
[[nodes]]
board = "uno_r4_minima"
"""
REHEARSING = FEDERATION.replace(  # its second round rehearses what the first one's ensemble says
    "[aggregation]", '[proxy]\nimages = 24\nepochs = 2\n[aggregation]\nmethod = "hybrid"'
)


def data() -> dict[str, np.ndarray]:
    """Four classes of 8×8 images: a bright quadrant each, in noise."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 4
        images = rng.integers(0, 120, (count, 8, 8))
        for image, label in zip(images, labels, strict=True):
            top, left = 4 * (label // 2), 4 * (label % 2)
            image[top : top + 4, left : left + 4] += 120
        return images.astype(np.uint8), labels.astype(np.uint8)

    (x_train, y_train), (x_test, y_test) = draw(600), draw(400)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


class World:
    """A folder with the model, the data and the boards' compiled firmware; any number of runs."""

    def __init__(self, folder: Path, settings: str = FEDERATION, like: World | None = None) -> None:
        """Make what is not in `folder` yet. One process at a time. settings: the federation file; like: a world of the
        same boards and tiers, whose compiled firmware will do."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.py").write_text(MODEL.format(hidden=4))
        (folder / "federation.toml").write_text(settings)
        if not (folder / "data.npz").exists():
            np.savez(folder / "data.npz", **data())  # type: ignore[arg-type]
        self.federation = federation.load(folder / "federation.toml")
        self.inputs: Inputs = load(self.federation)
        self.names = [spec.name for spec in self.federation.nodes()]
        self._shares = deal(self.federation)
        self._references: dict[tuple[tuple[str, ...], ...], State] = {}
        self._images: Path = like._images if like is not None else self._compiled(folder)

    def _compiled(self, folder: Path) -> Path:
        root = boards.PROJECT_ROOT
        made_from = fingerprint([*inputs(root, self.federation.path), MEMORY_PORT], root)
        images = folder / f"{firmware_hash(root):08x}-{made_from[:8]}"
        if not images.exists():
            unfinished = images.with_suffix(".tmp")
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda plan: compile_node(self.inputs, plan, unfinished), self.inputs.plans.values()))
            unfinished.rename(images)
        return images

    def nodes(self, folder: Path) -> list[SimulatedNode]:
        """Return the federation's nodes, without power; each has a copy of its library in `folder`: what is loaded
        from one file has one memory."""
        nodes, keys = [], keyring(self.federation)
        for spec in self.federation.nodes():
            library = Path(shutil.copy(self._images / spec.board / "node.so", folder / f"{spec.name}.so"))
            plan = self.inputs.plans[spec.kind]
            key = keys.get(node_uid(spec))
            share, secret = self._shares[spec.name], None if key is None else key.secret
            nodes.append(SimulatedNode(spec.name, node_uid(spec), plan, library, share, secret))
        return nodes

    def play(self, faults: Sequence[Fault], folder: Path, seed: int = 0, show: Show = ignore) -> Ending:
        """Hold a run in `folder`, which is empty, with these faults; begun again with --resume as often as it takes.
        `show` is given every event and the virtual time. Raises Violation."""
        return run_virtually(lambda: Play(self, faults, folder, seed, show).run())

    @cached_property
    def extent(self) -> Extent:
        """How much of everything there is in an undisturbed run."""
        with tempfile.TemporaryDirectory() as folder:
            return self.play((), Path(folder)).extent

    def reference(self, answered: tuple[tuple[str, ...], ...], folder: Path) -> State:
        """Return the state after rounds in which exactly these nodes are asked, on perfect wires."""
        if answered not in self._references:
            self._references[answered] = run_virtually(lambda: self._rounds(answered, folder))
        return self._references[answered]

    async def _rounds(self, answered: tuple[tuple[str, ...], ...], folder: Path) -> State:
        cables = {node.name: Cable(node.name, node) for node in self.nodes(folder)}
        for cable in cables.values():
            cable.node.start()
        state, settings = self.inputs.state, replace(round_settings(self.federation), plausible=False)
        joins, graph = joiner(self.inputs), self.inputs.graph
        roster = await assemble(
            self.federation, self.inputs.plans, list(cables), lambda _: None,
            open_port=lambda name, baud: cables[name].open(baud),
        )  # fmt: skip
        for number, names in enumerate(answered, 1):
            asked = [node for node in roster.nodes if node.name in names]
            if asked:
                outcome = await run_round(number, graph, state, asked, settings, lambda _: None, joiner=joins)
                state = outcome.state
        for cable in cables.values():
            cable.node.stop()
        return state
