"""What a sub-model costs on a board, to the byte, and which tier fits."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Literal

from boards import Board
from codegen import proxies
from codegen.code_size import KEYS, SHIFT, SHIFT_ELSEWHERE, SOURCES, code_bytes
from codegen.graph import Graph
from codegen.macs import step_macs
from codegen.memory import buffers, fixed_buffers, place
from codegen.names import c_names
from codegen.protocol import FRAME_OVERHEAD, Encoding, encoded_size
from codegen.shards import AVR, LABEL_BYTES
from codegen.tiers import SubModel, Tier, channels, nested, sub_model
from codegen.weights import size_of, weight_bytes

WINDOW_BYTES, DENSE_BYTES = 22, 10  # sizeof(struct engine_window), sizeof(struct engine_dense): no target pads them
WIRE_SHARE = 0.9  # of the line rate that a transfer reaches
SHIFTS = 2  # bytes a layer at each width: its output's scale and its gradient's
INPUT_BYTES = 256  # what each byte of a sample is worth in fixed point
NEAR_FLASH = 60_000  # bytes of constants that AVR's short instructions reach beside the vectors and the sizes of layers
POSITION_BYTES = 4  # in front of a streamed sample
STREAM_STATE = 36  # firmware/node/: a transfer under way beside that of the weights, and how many samples there are
KEY_STATE = 71  # firmware/node/authentication.c: nonces, the session's key, a count
HASH_STATE = 168  # sizeof(struct blake2s): behind the frame in the arena, if that has room
RING_STATE = 8  # firmware/node/samples.c: how many samples there are, and where the next one goes
# Frames of a streamed sample beside its chunks, both ways: BEGIN, ACK, COMMIT, STATUS, and a zero before each request.
SAMPLE_REQUESTS = 20 + 11 + 26 + 33 + 2
ACK_BYTES = 11
EncodingChoice = Literal["auto", "weights", "delta_f32", "delta_q8"]  # auto: the smallest that there is room for
SampleSource = Literal["flash", "stream", "sensor"]
Section = Literal["ram", "flash", "both"]  # both: AVR copies constants into RAM


class PlanError(ValueError):
    """No tier fits a board; the sentence says how many bytes are missing."""


@dataclass(frozen=True)
class FixedInput:
    """A sample's byte b is worth table[b] * 2^exponent."""

    table: tuple[int, ...]
    exponent: int


@dataclass(frozen=True)
class Training:
    """What a plan needs to know of the federation file."""

    batch: int = 8
    momentum: float = 0.0
    nested: bool = True
    encoding: EncodingChoice = "auto"
    input_range: tuple[float, float] = (0.0, 1.0)  # what 8-bit 0 and 255 mean to the model
    sources: Mapping[str, SampleSource] = field(default_factory=dict)  # of each board's samples, by its id, but flash
    samples_per_node: int = 0  # that a board with a sensor keeps
    keyed: frozenset[str] = frozenset()  # boards, by their ids, of nodes that have a key
    proxy: int = 0  # unlabelled images that a board rehearses, if it has room for so many
    shift: int = 0  # pixels by which images are moved at random, where there is a place for that
    rehearsals: int = 0  # of each of them in an epoch

    @property
    def input_scale(self) -> float:
        """What one step of an 8-bit sample is worth."""
        low, high = self.input_range
        return (high - low) / 255

    @property
    def fixed_input(self) -> FixedInput:
        """How fixed point reads a sample: the finest exponent under which both ends of the range fit 8 bits."""
        low, high = self.input_range
        mantissa, exponent = math.frexp(max(abs(low), abs(high)))
        exponent -= 8 if mantissa == 0.5 else 7
        values = (math.ldexp(low + byte * self.input_scale, -exponent) for byte in range(256))
        return FixedInput(tuple(max(-127, min(127, round(value))) for value in values), exponent)


@dataclass(frozen=True)
class Array:
    """One array that the header declares."""

    name: str
    bytes: int
    section: Section


@dataclass(frozen=True)
class Plan:
    """A tier on a board. Bytes unless said otherwise."""

    board: Board
    sub_model: SubModel
    widths: tuple[Tier, ...]  # own and every narrower tier, widest first
    graphs: tuple[Graph, ...] = field(repr=False)  # the sub-model at each width
    training: Training
    accumulates: bool  # a gradient buffer: batches larger than one, momentum
    keeps_origin: bool  # a copy of the round's weights: delta encodings
    arrays: tuple[Array, ...]
    ram_parts: dict[str, int]  # arrays by name, and adjustment, link, framework, stack
    flash: int
    reason: str = ""  # why it does not fit, and which tier would
    proxy: int = 0  # unlabelled images that it holds, to be rehearsed
    shifts: bool = False  # a place for an image that is moved

    @property
    def kernel(self) -> str:
        """The board's arithmetic: f32 or fixed."""
        return self.board.training.kernel

    @property
    def source(self) -> SampleSource:
        """Where the board's samples come from."""
        return self.training.sources.get(self.board.id, "flash")

    @property
    def batch(self) -> int:
        """Samples whose gradients make one step."""
        return self.training.batch if self.accumulates else 1

    @property
    def concessions(self) -> tuple[str, ...]:
        """What the federation file asks for and the board has no room for, with what happens instead."""
        wanted = self.training
        if self.keeps_origin or wanted.encoding in ("auto", "weights"):
            encoding: tuple[str, ...] = ()
        else:
            encoding = (f"weights, not {wanted.encoding}",)
        if self.accumulates:
            return encoding
        step = (f"batch 1, step ÷ {wanted.batch}",) if wanted.batch > 1 else ()
        return step + (("no momentum",) if wanted.momentum else ()) + encoding

    @property
    def ram(self) -> int:
        """Everything, the stack's reserve included."""
        return sum(self.ram_parts.values())

    @property
    def ram_limit(self) -> int:
        """What there is; less where the linker may fill only part of it, the framework's share included."""
        training = self.board.training
        return min(self.board.ram, training.static_ram + training.stack)

    @property
    def flash_limit(self) -> int:
        """What there is for a program."""
        return self.board.flash

    @property
    def missing_ram(self) -> int:
        """RAM short of fitting."""
        return max(0, self.ram - self.ram_limit)

    @property
    def missing_bytes(self) -> int:
        """RAM, or if that is enough flash, short of fitting."""
        return self.missing_ram or max(0, self.flash - self.flash_limit)

    @property
    def fits(self) -> bool:
        """Whether the board can hold it."""
        return self.missing_bytes == 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one training step, at every width it is trained at."""
        return sum(step_macs(graph) for graph in self.graphs[: self._trained_widths])

    @property
    def _trained_widths(self) -> int:
        return len(self.graphs) if self.training.nested else 1

    @property
    def step_seconds(self) -> float:
        """Time of one sample."""
        board = self.board.training
        cycles = self.macs * board.cycles_per_mac + self._trained_widths * board.cycles_per_sample
        return cycles / self.board.frequency_hz

    @property
    def samples_in_flash(self) -> int:
        """How many samples the rest of the flash holds beside the proxy images, if the program is as much larger than
        planned as may be; none if they come from elsewhere."""
        if self.source != "flash":
            return 0
        return max(0, proxies.images_beside(self, self.flash) - self.proxy)

    @property
    def transfer_bytes(self) -> tuple[int, int]:
        """Bytes on the wire of a round's weights (and soft targets), and of its update; frames included."""
        weights, count = weight_bytes(self), self.sub_model.graph.parameters
        small = self.keeps_origin and self.training.encoding in ("auto", "delta_q8")
        targets = self._framed(self.proxy * self.sub_model.graph.classes) if self._rehearsed else 0
        update = encoded_size(Encoding.DELTA_Q8, count) if small else weights
        return self._framed(weights) + targets, self._framed(update)

    def round_seconds(self, samples: int, epochs: int) -> float:
        """Time of a round: weights there, training, update back, at the fastest rate the board holds. `samples`: its
        own; what it rehearses besides is counted in."""
        wire, steps = sum(self.transfer_bytes), epochs * (samples + self._rehearsed)
        if self.source == "stream":
            wire += steps * self._sample_wire_bytes
        return 10 * wire / (max(self.board.training.bauds) * WIRE_SHARE) + steps * self.step_seconds

    @property
    def _rehearsed(self) -> int:
        return self.training.rehearsals * self.proxy

    @property
    def _sample_wire_bytes(self) -> int:
        """Bytes on the wire of a streamed sample; its acknowledgements travel while its chunks do, but for the last."""
        return self._framed(sample_bytes(self.sub_model.graph)) + ACK_BYTES + SAMPLE_REQUESTS

    @property
    def model_hash(self) -> int:
        """u32 of all that both sides must agree on: layers, frozen weights, channels at each width, input, kernel."""
        layers = [astuple(layer)[1:] for layer in self.sub_model.graph.layers]  # a layer's name changes nothing
        counts = [[layer.out_shape[2] for layer in graph.layers] for graph in self.graphs]
        graph = self.sub_model.graph
        facts = [self.sub_model.tier.name, layers, counts, graph.frozen_crc, self.training.input_range]
        if self.kernel == "fixed":
            facts.append(self.kernel)
        return zlib.crc32(json.dumps(facts).encode())

    def _framed(self, size: int) -> int:
        return size + FRAME_OVERHEAD * math.ceil(size / self.board.training.mtu)


def plan(board: Board, graph: Graph, tiers: Sequence[Tier], tier: Tier, training: Training) -> Plan:
    """Return the plan of one tier, whether it fits or not; if not, `reason` says why. Raises TierError."""
    ordered = nested(graph, tiers)
    found = _plan(board, graph, ordered, tier, training)
    if found.fits:
        return found
    plans = (_plan(board, graph, ordered, other, training) for other in ordered)
    fitting = next((other.sub_model.tier.name for other in plans if other.fits), None)
    return _with_reason(found, f"{fitting} is the largest that fits" if fitting else "no tier fits")


def best(board: Board, graph: Graph, tiers: Sequence[Tier], training: Training) -> Plan:
    """Return the plan of the largest tier that fits. Raises PlanError if none does, and TierError."""
    ordered = nested(graph, tiers)
    for tier in ordered:
        found = _plan(board, graph, ordered, tier, training)
        if found.fits:
            return found
    mend = "add a narrower tier to [tiers]" if len(ordered) > 1 else "make the model smaller"
    raise PlanError(_with_reason(found, f"no tier fits: {mend}, or use a larger board").reason)


def _with_reason(found: Plan, instead: str) -> Plan:
    what = "RAM" if found.missing_ram else "flash"
    name = found.sub_model.tier.name
    sentence = f"tier {name} needs {found.missing_bytes:,} bytes of {what} more than {found.board.id} has; {instead}"
    if found.source == "sensor" and found.missing_ram:
        wanted = found.training.samples_per_node
        held = max(0, wanted - math.ceil(found.missing_ram / (found.sub_model.graph.features + LABEL_BYTES)))
        sentence += f"; of its sensor's {wanted:,} samples (samples_per_node) it could keep {held:,}"
    return replace(found, reason=sentence)


def _plan(board: Board, graph: Graph, ordered: Sequence[Tier], tier: Tier, training: Training) -> Plan:
    """Return the first of the ways to train this tier that fits, or the one that needs least."""
    widths = _own_and_narrower(graph, ordered, tier)
    own = sub_model(graph, tier)
    graphs = (own.graph, *(sub_model(graph, other).graph for other in widths[1:]))
    fixed = board.training.kernel == "fixed"  # which trains at batch 1 and sends its weights
    may_accumulate = (True, False) if not fixed and (training.batch > 1 or training.momentum) else (False,)
    may_keep_origin = (False,) if fixed or training.encoding == "weights" else (True, False)
    for accumulates in may_accumulate:
        for keeps_origin in may_keep_origin:
            arrays = _arrays(board, graphs, accumulates, keeps_origin) + _sample_arrays(board, own.graph, training)
            env, kernel = board.training.env, board.training.kernel
            source = training.sources.get(board.id, "flash")
            flash = board.training.framework_flash + SOURCES.get((env, source), 0)
            flash += KEYS.get(env, 0) if board.id in training.keyed else 0
            flash += code_bytes(env, kernel, own.graph, accumulates, keeps_origin)
            flash += sum(array.bytes for array in arrays if array.section != "ram")
            parts = _ram_parts(board, own.graph, arrays, source, board.id in training.keyed)
            found = Plan(
                board, own, widths, graphs, training, accumulates, keeps_origin, tuple(arrays), parts, flash
            )  # fmt: skip
            if found.fits:
                return _with_shift(_with_proxy(found))
    return found


def _with_proxy(found: Plan) -> Plan:
    """Return the plan with as many of the proxy images as there is room for, and their soft targets."""
    count = proxies.rehearsed(found)
    if count == 0:
        return found
    array = Array(proxies.TARGETS, count * found.sub_model.graph.classes, "ram")
    parts = {**found.ram_parts, array.name: array.bytes, proxies.REHEARSAL: proxies.state_bytes(found)}
    flash = found.flash + proxies.code_bytes(found.board.training.env)
    return replace(found, proxy=count, arrays=(*found.arrays, array), ram_parts=parts, flash=flash)


def _with_shift(found: Plan) -> Plan:
    """Return the plan with a place for an image that is moved, if it is wanted and there is room for it."""
    graph = found.sub_model.graph
    pictures = min(graph.input_shape[:2]) > 1
    in_memory = found.board.training.env != AVR  # where kernels read samples from flash, they read none from RAM
    if not (found.training.shift and pictures and in_memory and found.ram + graph.features <= found.ram_limit):
        return found
    array = Array("model_shifted", graph.features, "ram")
    parts = {**found.ram_parts, array.name: array.bytes}
    flash = found.flash + SHIFT.get(found.board.training.env, SHIFT_ELSEWHERE)
    return replace(found, shifts=True, arrays=(*found.arrays, array), ram_parts=parts, flash=flash)


def _own_and_narrower(graph: Graph, ordered: Sequence[Tier], tier: Tier) -> tuple[Tier, ...]:
    """Return the tier and those narrower, leaving out any that keeps the same channels as the one before it."""
    widths = [tier]
    for other in ordered:
        if channels(graph, other) < channels(graph, widths[-1]):
            widths.append(other)
    return tuple(widths)


def _arrays(board: Board, graphs: Sequence[Graph], accumulates: bool, keeps_origin: bool) -> list[Array]:
    """Return every array that the header declares, in its order."""
    graph, fixed = graphs[0], board.training.kernel == "fixed"
    arrays = [Array("model_weights", size_of(graph, board.training.kernel), "ram")]
    if accumulates:
        arrays.append(Array("model_gradients", 4 * graph.parameters, "ram"))
    if keeps_origin:
        arrays.append(Array("model_origin", 4 * graph.parameters, "ram"))
    arena = place(fixed_buffers(graph) if fixed else buffers(graph, accumulates))
    arrays.append(Array("model_arena", arena.bytes, "ram"))
    if fixed:
        arrays.append(Array("model_shift", SHIFTS * len(graph.layers) * len(graphs), "ram"))
        arrays.append(Array("model_input", INPUT_BYTES, "flash"))
    element = 2 if fixed else 4
    sizes = [DENSE_BYTES if layer.kind == "dense" else WINDOW_BYTES for layer in graph.layers]
    if board.training.env == AVR:
        arrays.append(Array("model_shape", max(sizes), "ram"))  # those in use
    for index, (name, layer, size) in enumerate(zip(c_names(graph), graph.layers, sizes, strict=True)):
        arrays.append(Array(f"model_shape_{name}", size * len(graphs), "flash"))
        if not layer.trainable:
            section = _frozen_section(graph, index, element) if board.training.env == AVR else "flash"
            arrays += [Array(f"model_{t.role}_{name}", element * t.size, section) for t in layer.tensors()]
    return arrays


def sample_bytes(graph: Graph) -> int:
    """Return the bytes of a streamed sample: its position, its label, its features."""
    return POSITION_BYTES + LABEL_BYTES + graph.features


def _sample_arrays(board: Board, graph: Graph, training: Training) -> list[Array]:
    """Return what the header declares to keep samples in RAM."""
    source, count = training.sources.get(board.id, "flash"), training.samples_per_node
    if source == "stream":
        return [Array("model_sample", sample_bytes(graph), "ram")]
    if source == "sensor":
        return [
            Array("model_samples", count * graph.features, "ram"),
            Array("model_labels", count * LABEL_BYTES, "ram"),
        ]
    return []


def _frozen_section(graph: Graph, index: int, element: int) -> Section:
    """Return where an AVR has a frozen layer's weights: its kernels read flash, the first 64 KB, but only forwards."""
    below = [tensor for layer in graph.layers[: index + 1] for tensor in layer.tensors()]
    near = element * sum(tensor.size for tensor in below) <= NEAR_FLASH
    return "flash" if index < graph.first_trainable and near else "both"


def _ram_parts(
    board: Board, graph: Graph, arrays: Sequence[Array], source: SampleSource, keyed: bool
) -> dict[str, int]:
    training = board.training
    samples = {"stream": STREAM_STATE, "sensor": RING_STATE}
    frame = training.mtu + FRAME_OVERHEAD
    arena = next(array.bytes for array in arrays if array.name == "model_arena")
    hash_in_arena = arena >= -(-frame // 4) * 4 + HASH_STATE  # firmware/node/authentication.c, as a frame in wire.c
    return {
        **{array.name: array.bytes for array in arrays if array.section != "flash"},
        # firmware/node/training.c: for each class a float, or 16 bits
        "adjustment": (2 if training.kernel == "fixed" else 4) * graph.classes,
        "link": (1 if arena >= frame else 2) * frame + training.window,  # to receive; and, if not there, to send
        **({"key": KEY_STATE + (0 if hash_in_arena else HASH_STATE)} if keyed else {}),
        **({source: samples[source]} if source in samples else {}),
        "framework": training.framework_ram,
        "stack": training.stack,
    }
