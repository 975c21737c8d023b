"""A run's global model and its tiers as files for other programs: Keras, TFLite, C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from codegen.header import inference_header
from codegen.keras_model import keras_model, shaped
from codegen.tiers import SubModel, Tier, channel_order, nested, sub_model
from coordinator.aggregation import Weights
from coordinator.compiler import CompilerError
from coordinator.errors import RunFileError, UsageError
from coordinator.events import CheckpointWritten, RunStarted
from coordinator.export_files import header_answers, tflite_answers, tflite_model
from coordinator.federation import Federation
from coordinator.journal import Line, of_kind, read_checkpoint, read_journal, write_durably
from coordinator.partition import kept_back
from coordinator.results import Inputs, trained, write_keras
from coordinator.shares import dealt_indices
from coordinator.state import State
from coordinator.stopping import ranking

if TYPE_CHECKING:
    import keras

Format = Literal["keras", "tflite", "header"]
Kernel = Literal["f32", "fixed"]
Array = np.ndarray[Any, np.dtype[Any]]

FORMATS: tuple[Format, ...] = ("keras", "tflite", "header")
WORDS = {"f32": "float32", "fixed": "fixed point"}
GLOBAL = "global"  # what the global model is called beside the tiers
REPRESENTATIVE = 200  # images by which 8-bit ranges are chosen
BATCH = 2000  # test images at once


@dataclass(frozen=True)
class Kept:
    """What a run kept after a round: the weights, and every tier's slice of them, widest first."""

    round: int
    weights: Weights
    slices: tuple[SubModel, ...]


@dataclass(frozen=True)
class Representative:
    """Images u8 [n, features...] by which ranges are chosen, and in words which."""

    images: Array
    words: str


@dataclass(frozen=True)
class Written:
    """A file that was written. `accuracy`: share of the test images that it gets right; None: nothing could run it."""

    tier: str
    format: Format
    path: str
    bytes: int
    accuracy: float | None
    note: str  # how it takes a sample, and what it answers


def kept(folder: Path, inputs: Inputs, which: str | None = None) -> Kept:
    """Return what the run in `folder` kept after round `which`: a number, last, best by the validation images, or None:
    the best if there are such images, else the last, as global.keras has it. The run may be going on.

    Raises RunFileError if it is no run, or one of another federation, or has kept nothing yet; UsageError.
    """
    lines = _lines(folder, inputs.fingerprint, inputs.federation)
    written = {line["round"]: line for line in of_kind(lines, CheckpointWritten)}
    best = [each.round for each in ranking(lines, inputs.federation.training.rounds) if each.round in written]
    wanted = _round(which, sorted(written), best, folder)
    after = _state(folder, written, wanted, inputs)
    earlier = [number for number in written if number < wanted]
    before = _state(folder, written, max(earlier), inputs).weights if earlier else inputs.weights
    order = channel_order(inputs.graph, inputs.federation.aggregation.select, wanted, before)
    tiers = nested(inputs.graph, inputs.federation.tier_list())
    return Kept(wanted, after.result, tuple(sub_model(inputs.graph, tier, order) for tier in tiers))


def _lines(folder: Path, fingerprint: str, federation: Federation) -> list[Line]:
    path = folder / "journal.jsonl"
    if not path.is_file():
        others = sorted(other.parent.name for other in folder.parent.glob("*/journal.jsonl"))
        there = f"{folder.parent} has {', '.join(others)}" if others else "`coordinator demo` makes one"
        raise RunFileError(f"{folder}: no run is here (no journal.jsonl); {there}")
    lines, _ = read_journal(path)
    began = [line["federation"] for line in of_kind(lines, RunStarted)]
    if began and began[0] != fingerprint:
        raise RunFileError(
            f"{folder}: this run did not begin with {federation.path}, or its model or data have changed since "
            f"({began[0][:12]}, now {fingerprint[:12]}); say with --federation which file it was"
        )
    return lines


def _round(which: str | None, numbers: Sequence[int], best: Sequence[int], folder: Path) -> int:
    """Return the round that is meant, of those that were kept; `best` are those with validation images, best first."""
    if not numbers:
        raise RunFileError(f"{folder}: no round of this run is finished yet; export it when the first one is")
    if which is None:
        return best[0] if best else numbers[-1]
    if which == "last":
        return numbers[-1]
    if which == "best":
        if not best:
            raise UsageError("--round best: this run has no validation images to judge by ([data] validation)")
        return best[0]
    if not which.isdecimal() or int(which) not in numbers:
        raise UsageError(f"--round {which}: expected best, last, or a round that was kept: {_spans(numbers)}")
    return int(which)


def _spans(numbers: Sequence[int]) -> str:
    """Return sorted numbers as text: 1 to 4, 6."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    spans = zip(starts, ends, strict=True)
    return ", ".join(str(start) if start == end else f"{start} to {end}" for start, end in spans)


def _state(folder: Path, written: dict[int, Line], number: int, inputs: Inputs) -> State:
    state = read_checkpoint(folder, written[number], inputs.shapes)
    if state is None:
        raise RunFileError(
            f"{folder / written[number]['file']}: absent, or not as the run wrote it; take another --round"
        )
    return state


def representative(inputs: Inputs) -> Representative:
    """Return the proxy set, or else training images that no node holds, if there are any; never test images."""
    if len(inputs.proxy):
        return Representative(inputs.proxy, f"the {len(inputs.proxy)} images of the proxy set")
    x, federation = inputs.dataset.x_train, inputs.federation
    unjudged, _ = kept_back(len(x), federation.data.validation, federation.seed)
    held = np.concatenate(dealt_indices(federation, inputs.dataset))
    free = np.setdiff1d(unjudged, held)
    words = "training images that no node holds"
    if not len(free):
        free, words = np.unique(held), "training images, which nodes hold, too: every one is somebody's"
    count = min(REPRESENTATIVE, len(free))
    chosen = free[np.linspace(0, len(free) - 1, count).astype(int)]  # from all over: the file may be sorted
    return Representative(x[chosen], f"{count} {words}")


def export(
    inputs: Inputs,
    run: Kept,
    folder: Path,
    names: Sequence[str] = (),
    formats: Sequence[Format] = FORMATS,
    kernel: Kernel | None = None,
    watch: Callable[[str], None] = lambda _: None,
) -> list[Written]:
    """Write the global model and the tiers (those of `names`, if there are any) to `folder`, and try each on the test
    images.

    `kernel`: the headers' arithmetic (None: that of the boards that hold the tier). Raises UsageError, OSError.
    """
    chosen = _chosen(inputs, run, names)
    folder.mkdir(parents=True, exist_ok=True)
    exporter = _Exporter(inputs, run, folder, representative(inputs), kernel)
    found = []
    for stem, cut in chosen:
        watch(cut.tier.name)
        found += [exporter.write(stem, cut, each) for each in formats]
    return found


def _chosen(inputs: Inputs, run: Kept, names: Sequence[str]) -> list[tuple[str, SubModel]]:
    """Return how the files are called, without their suffix, and what is in them."""
    every = {GLOBAL: (GLOBAL, sub_model(inputs.graph, Tier(GLOBAL, 1.0)))}
    every |= {cut.tier.name: (f"model_{cut.tier.name}", cut) for cut in run.slices}
    for name in names:
        if name not in every:
            raise UsageError(f"--tier {name}: no tier of {inputs.federation.path}; expected {', '.join(every)}")
    return [every[name] for name in names or every]


class _Exporter:
    """Writes one sub-model after the other."""

    def __init__(
        self, inputs: Inputs, run: Kept, folder: Path, seen: Representative, kernel: Kernel | None
    ) -> None:
        self._inputs, self._run, self._folder, self._seen, self._kernel = inputs, run, folder, seen, kernel
        self._whole = trained(inputs.federation, run.weights)
        self._shape = tuple(self._whole.input_shape[1:])
        self._models: dict[str, keras.Model] = {}

    def write(self, stem: str, cut: SubModel, kind: Format) -> Written:
        """Write a file and try it."""
        path = self._folder / f"{stem}{'.h' if kind == 'header' else f'.{kind}'}"
        way = {"keras": self._keras, "tflite": self._tflite, "header": self._header}[kind]
        answers, note = way(path, cut)
        right = None if answers is None else float((answers == self._inputs.dataset.y_test).mean())
        return Written(cut.tier.name, kind, str(path), path.stat().st_size, right, note)

    def _keras(self, path: Path, cut: SubModel) -> tuple[Array | None, str]:
        model = self._model(cut)
        write_keras(model, path)
        x = self._values(self._inputs.dataset.x_test)
        answers = [model(x[at : at + BATCH], training=False).numpy() for at in range(0, len(x), BATCH)]
        low, high = self._inputs.dataset.range
        note = f"takes float32 {'×'.join(map(str, self._shape))}, {low:g} to {high:g}"
        return np.concatenate(answers).reshape(len(x), -1).argmax(axis=1), note

    def _tflite(self, path: Path, cut: SubModel) -> tuple[Array | None, str]:
        content = tflite_model(self._model(cut), self._values(self._seen.images))
        write_durably(path, content)
        answers, note = tflite_answers(content, self._values(self._inputs.dataset.x_test))
        return answers.argmax(axis=1), note

    def _header(self, path: Path, cut: SubModel) -> tuple[Array | None, str]:
        kernel = self._kernel or self._boards_kernel(cut.tier.name)
        settings = self._inputs.federation.plan_settings()
        peaks = self._peaks(cut) if kernel == "fixed" else None
        try:
            header = inference_header(cut, self._run.weights, kernel, settings, peaks)
        except ValueError as error:
            raise UsageError(f"tier {cut.tier.name}: {error}; or take --kernel f32") from error
        write_durably(path, header.encode())
        note = f"takes bytes as the data set has them; computes in {WORDS[kernel]}"
        try:
            return header_answers(path, self._inputs.dataset.x_test).argmax(axis=1), note
        except CompilerError:
            return None, f"{note}; not tried, because no C compiler was found"

    def _boards_kernel(self, tier: str) -> str:
        """Return fixed if only boards without an FPU hold the tier."""
        kernels = {made.kernel for made in self._inputs.plans.values() if made.sub_model.tier.name == tier}
        return "fixed" if kernels == {"fixed"} else "f32"

    def _model(self, cut: SubModel) -> keras.Model:
        """Return a sub-model as the user would have built it: the same input, softmax if the global model has one."""
        if cut.tier.name not in self._models:
            self._models[cut.tier.name] = self._whole if cut.tier.name == GLOBAL else self._tier_model(cut)
        return self._models[cut.tier.name]

    def _tier_model(self, cut: SubModel) -> keras.Model:
        import keras

        inner = keras_model(cut.graph)
        inner.set_weights(shaped(inner, cut.cut(self._run.weights)))
        before = [] if self._shape == cut.graph.input_shape else [keras.layers.Reshape(cut.graph.input_shape)]
        after = [keras.layers.Softmax()] if cut.graph.softmax else []
        return keras.Sequential([keras.Input(self._shape), *before, *inner.layers, *after], name=cut.tier.name)

    def _peaks(self, cut: SubModel) -> list[float]:
        """Return the largest magnitude of each layer's output on the representative images."""
        import keras

        inner = keras_model(cut.graph)
        inner.set_weights(shaped(inner, cut.cut(self._run.weights)))
        activated = [f"{layer.name}_activation" if layer.slope != 1.0 else layer.name for layer in cut.graph.layers]
        probe = keras.Model(inner.inputs[0], [inner.get_layer(name).output for name in activated])
        x = self._inputs.dataset.decode(self._seen.images).reshape(-1, *cut.graph.input_shape)
        return [float(np.abs(values).max()) for values in probe(x, training=False)]

    def _values(self, x: Array) -> Array:
        """Return u8 samples as the model takes them."""
        return self._inputs.dataset.decode(x).reshape(-1, *self._shape)
