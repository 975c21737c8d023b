"""The federation file: everything a run depends on, validated.

`load` turns a TOML file into a Federation or raises FederationError with the file, the line, what was found and what
was expected. The models are closed (`extra="forbid"`) and strict: 8 is not "8".
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from codegen.planner import EncodingChoice, SampleSource
from codegen.planner import Training as PlanTraining
from codegen.tiers import DEFAULT_TIERS, Select, Tier, tiers_from

from .errors import FederationError
from .federation_errors import FILE_NAME, PATTERNS, TIER_NAME, UNIQUE_ID, At, explain, syntax_error

MAX_NODES = 10_000
REHEARSED = 0.4  # turns of proxy images in an epoch to one of a node's own, if the file does not say how many
MAX_FILE = 1 << 20  # bytes; a federation file is a page, and anything larger is not one

Split = Literal["iid", "dirichlet", "shards", "owner"]
Method = Literal["auto", "substructure", "distillation", "hybrid"]
Name = Annotated[str, Field(pattern=FILE_NAME)]
TierName = Annotated[str, Field(pattern=TIER_NAME)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class NodeSpec:
    """One node that the run expects; `uid` is None if any unclaimed node of that board will do."""

    name: str
    board: str
    uid: str | None
    source: SampleSource = "flash"
    model: str | None = None  # the file of its own model; None: a tier of the global one

    @property
    def own(self) -> str | None:
        """What its own model is called, if it has one."""
        return own_name(self.model) if self.model else None

    @property
    def kind(self) -> str:
        """What it has in common with the nodes of its plan: the board, and its own model."""
        return f"{self.board}+{self.own}" if self.own else self.board


def own_name(model: str) -> str:
    """Return what a node's own model is called, and its only tier: its file's name without the suffix."""
    return PurePosixPath(model).stem


class Table(BaseModel):
    """Base of every table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _width(value: Any) -> float | tuple[int, ...]:
    if isinstance(value, list) and value and all(type(count) is int and count > 0 for count in value):
        return tuple(value)
    if type(value) in (int, float) and 0 < value <= 1:
        return float(value)
    raise ValueError(f"is {value!r}; expected a width in (0, 1], or a list of channel counts, at least 1 each")


Width = Annotated[float | tuple[int, ...], PlainValidator(_width)]


def _trainable(value: Any) -> Literal["auto"] | tuple[str, ...]:
    if isinstance(value, list) and all(type(name) is str for name in value):
        return tuple(value)
    if value == "auto":
        return "auto"
    raise ValueError(f'is {value!r}; expected a list of layer names, or "auto"')


class Model(Table):
    """`[model]`: the global model. `trainable`: the layers to train, or auto: codegen.freezing; None: Keras's."""

    path: Annotated[str, Field(min_length=1)]
    trainable: Annotated[Literal["auto"] | tuple[str, ...], PlainValidator(_trainable)] | None = None


class Data(Table):
    """`[data]`: the samples, and how they are dealt out."""

    path: Annotated[str, Field(min_length=1)]
    samples_per_node: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    split: Split = "iid"
    alpha: Positive = 0.3  # of dirichlet: the smaller, the more uneven
    classes_per_node: Annotated[int, Field(ge=1, le=65_535)] = 2  # of shards
    validation: Annotated[int, Field(ge=0, le=1_000_000)] = 0  # labelled training samples that no node holds
    range: tuple[float, float] = (0.0, 1.0)  # what 8-bit 0 and 255 mean to the model

    @field_validator("range")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not -1e30 < value[0] < value[1] < 1e30:
            raise ValueError(f"is {list(value)}; expected two finite numbers, the lower first")
        return value


class Training(Table):
    """`[training]`: what each node does with its samples."""

    rounds: Annotated[int, Field(ge=1, le=65_535)] = 10
    epochs: Annotated[int, Field(ge=1, le=255)] = 1
    batch: Annotated[int, Field(ge=1, le=255)] = 8
    learning_rate: Positive = 0.1
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # factor a round
    learning_rate_schedule: Literal["constant", "linear"] = "constant"  # linear: to 0 behind the last round
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_gradient_norm: Annotated[float, Field(ge=0, allow_inf_nan=False, lt=1e30)] = 0.0  # of a batch; 0: no bound
    shift: Annotated[int, Field(ge=0, le=16)] = 0  # pixels by which a node moves its images at random, at most
    nested: bool = True
    logit_adjustment: bool = True
    patience: Annotated[int, Field(ge=0, le=65_535)] = 0  # rounds that need not be better on validation; 0: any

    def rate(self, round_number: int) -> float:
        """Return the learning rate of a round, counted from 1."""
        done = (round_number - 1) / self.rounds if self.learning_rate_schedule == "linear" else 0.0
        return self.learning_rate * self.learning_rate_decay ** (round_number - 1) * (1 - done)


class Proxy(Table):
    """`[proxy]`: unlabelled images that all share, and what is done with them. Without the table there are none."""

    images: Annotated[int, Field(ge=0, le=65_535)] = 200
    path: Annotated[str, Field(min_length=1)] | None = None  # None: training images of [data] that no node holds
    rehearsals: Annotated[int, Field(ge=0, le=255)] | None = None  # in an epoch; None: two turns to five of its own
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None  # of the distillation; None: 8,000 images' worth
    learning_rate: Positive = 0.001  # of the distillation


class Aggregation(Table):
    """`[aggregation]`: how updates become one model. method auto: hybrid if there is a proxy set, or substructure."""

    method: Method = "auto"
    select: Select = "prefix"
    min_nodes: Annotated[int, Field(ge=1, le=MAX_NODES)] = 1
    quarantine: Annotated[int, Field(ge=0, le=65_535)] = 3  # refused updates; 0: nobody, nor is plausibility judged
    weights: Literal["samples", "inverse_loss", "uniform"] = "samples"
    robust: Literal["none", "clip", "median", "trimmed_mean", "krum"] = "none"
    faulty: Annotated[float, Field(ge=0, lt=0.5)] = 0.2  # share of the nodes that trimmed_mean and krum reckon with
    server: Literal["none", "momentum", "adam"] = "none"
    server_learning_rate: Positive | None = None  # None: 1 for momentum, 0.01 for adam
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the running mean of the weights: what it keeps in a round


class Link(Table):
    """`[link]`: how updates travel."""

    encoding: EncodingChoice = "auto"


def _known_board(board: str) -> str:
    import boards

    try:
        boards.load(board)
    except boards.BoardError as error:
        raise ValueError(str(error)) from error
    return board


class Nodes(Table):
    """`[[nodes]]`: a node, or `count` of them on the same kind of board."""

    board: Annotated[str, AfterValidator(_known_board)]
    count: Annotated[int, Field(ge=1, le=MAX_NODES)] = 1
    source: SampleSource = "flash"  # of its samples
    model: Annotated[str, Field(min_length=1)] | None = None  # its own, instead of a tier of the global one
    name: Name | None = None
    uid: Annotated[str, Field(pattern=UNIQUE_ID)] | None = None

    @model_validator(mode="after")
    def _one_uid(self) -> Self:
        if self.uid is not None and self.count > 1:
            raise ValueError(f"has a uid and count = {self.count}; a uid names one board, so leave out count")
        return self


class Federation(Table):
    """A whole federation file; its relative paths start at its own folder."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    model: Model
    tiers: dict[TierName, Width] = dict(DEFAULT_TIERS)
    data: Data
    training: Training = Training()
    proxy: Proxy = Proxy(images=0)
    aggregation: Aggregation = Aggregation()
    link: Link = Link()
    entries: Annotated[tuple[Nodes, ...], Field(alias="nodes", min_length=1)]

    _path: Path = PrivateAttr(default=Path("federation.toml"))

    @field_validator("tiers")
    @classmethod
    def _some_tiers(cls, value: dict[str, float | tuple[int, ...]]) -> dict[str, float | tuple[int, ...]]:
        if not value:
            raise ValueError("is empty; expected at least one tier, such as expanded = 1.0")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for index, spec in self._expand():
            for kind, value in (("name", spec.name), ("uid", spec.uid)):
                if value in seen:
                    raise At(("nodes", index, kind), f"is {value!r}, as of another node; expected each {kind} once")
                seen.update([value] if value else [])
        sources: dict[str, SampleSource] = {}
        for index, entry in enumerate(self.entries):
            if sources.setdefault(entry.board, entry.source) != entry.source:
                first = sources[entry.board]
                raise At(
                    ("nodes", index, "source"),
                    f"is {entry.source!r}, but an earlier {entry.board} has {first!r}; expected one source a board",
                )
        if self.aggregation.method in ("distillation", "hybrid") and not self.proxy.images:
            raise At(
                ("aggregation", "method"),
                f"is {self.aggregation.method!r}, which distils on a proxy set; expected a [proxy] table with images",
            )
        self._check_own_models()
        patience = self.training.patience
        if patience and not self.data.validation:
            raise At(
                ("training", "patience"),
                f"is {patience}, but [data] has no validation images, by which alone a run may end early; expected "
                "patience = 0, or [data] validation = 500 or so",
            )
        if self.aggregation.method == "distillation" and self.aggregation.server != "none":
            raise At(
                ("aggregation", "server"),
                f"is {self.aggregation.server!r}, but method = \"distillation\" takes no mean; expected 'none'",
            )
        least, most = self.aggregation.min_nodes, len(self.nodes())
        if least > most:
            raise At(("aggregation", "min_nodes"), f"is {least}; expected at most {most}, the number of nodes")
        return self

    def _check_own_models(self) -> None:
        """Raise At for an own model whose name is another's: it names the tier in HELLO, tables and checkpoints."""
        files: dict[str, str] = {}
        for index, entry in enumerate(self.entries):
            if entry.model is None:
                continue
            place, name = ("nodes", index, "model"), own_name(entry.model)
            if entry.model == self.model.path:
                raise At(place, f"is {entry.model!r}, the global model; leave it out, and it trains a tier of that")
            if self.aggregation.method == "substructure" or not self.proxy.images:
                raise At(
                    place,
                    f"is {entry.model!r}, which shares nothing with the global model that could be averaged; expected "
                    'a [proxy] table with images, and method = "hybrid" or "distillation" in [aggregation]',
                )
            if not re.fullmatch(TIER_NAME, name):
                raise At(place, f"is {entry.model!r}; expected a file whose name is {PATTERNS[TIER_NAME]}")
            if name in self.tiers:
                raise At(place, f"is {entry.model!r}, but [tiers] has a tier {name!r}; expected another name")
            if files.setdefault(name, entry.model) != entry.model:
                raise At(place, f"is {entry.model!r}, but {files[name]!r} is called {name!r} too; rename one")

    @property
    def own_models(self) -> dict[str, Path]:
        """The files of the models that nodes have of their own, by name, in file order."""
        files = (entry.model for entry in self.entries if entry.model is not None)
        return {own_name(file): self.directory / file for file in files}

    def nodes(self) -> list[NodeSpec]:
        """Return the nodes in file order, counts expanded: `count = 2` of esp32dev is esp32dev-1 and esp32dev-2."""
        return [spec for _, spec in self._expand()]

    def _expand(self) -> Iterator[tuple[int, NodeSpec]]:
        used: Counter[str] = Counter()
        for index, entry in enumerate(self.entries):
            stem = entry.name or entry.board
            for _ in range(entry.count):
                used[stem] += 1
                name = stem if entry.name and entry.count == 1 else f"{stem}-{used[stem]}"
                uid = entry.uid.lower() if entry.uid else None
                yield index, NodeSpec(name, entry.board, uid, entry.source, entry.model)

    @property
    def path(self) -> Path:
        """The federation file itself, absolute."""
        return self._path

    @property
    def directory(self) -> Path:
        """The folder of the federation file."""
        return self._path.parent

    @property
    def model_path(self) -> Path:
        """The model file, resolved against the federation file's folder."""
        return self.directory / self.model.path

    @property
    def data_path(self) -> Path:
        """The data set, resolved against the federation file's folder."""
        return self.directory / self.data.path

    @property
    def proxy_path(self) -> Path | None:
        """The file of the proxy images, if they are not of the data set."""
        return None if self.proxy.path is None else self.directory / self.proxy.path

    def settings(self) -> dict[str, Any]:
        """Return the whole file as values that JSON knows, with the defaults that it leaves out."""
        return self.model_dump(by_alias=True)

    @property
    def digest(self) -> str:
        """SHA-256, as hex, of the file's meaning: layout, comments and defaults written out do not change it."""
        canonical = json.dumps(self.settings(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def tier_list(self) -> tuple[Tier, ...]:
        """Return the tiers as codegen takes them, in file order."""
        return tiers_from(self.tiers)

    @property
    def rehearsal(self) -> tuple[int, int]:
        """How many of the proxy images a node holds at most, and how often it trains each in an epoch."""
        images, rehearsals = self.proxy.images, self.proxy.rehearsals
        if rehearsals is not None:
            return (images, rehearsals) if images and rehearsals else (0, 0)
        turns = max(1, round(REHEARSED * self.data.samples_per_node))
        held = min(images, turns)
        return held, min(255, round(turns / held)) if held else 0

    def plan_settings(self) -> PlanTraining:
        """Return what decides what a node's memory must hold: in this file, and who has a key."""
        from coordinator.keys import keyed_nodes

        training, boards_of = self.training, {spec.name: spec.board for spec in self.nodes()}
        keyed = frozenset(boards_of[name] for name in keyed_nodes(self))
        sources = {entry.board: entry.source for entry in self.entries if entry.source != "flash"}
        return PlanTraining(
            training.batch, training.momentum, training.nested, self.link.encoding, self.data.range, sources,
            self.data.samples_per_node, keyed, proxy=self.rehearsal[0], rehearsals=self.rehearsal[1],
            shift=training.shift,
        )  # fmt: skip


def load(path: Path) -> Federation:
    """Return the federation that a TOML file describes; raises FederationError naming the line at fault."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise FederationError(f"{path}: more than {MAX_FILE} bytes; a federation file has at most {MAX_FILE}")
        source = content.decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise FederationError(f"{path}: {error.strerror}; expected a federation file (--federation FILE)") from error
    except UnicodeDecodeError as error:
        raise FederationError(f"{path}: not UTF-8 text (byte {error.start}); expected a TOML file") from error
    try:
        document = tomllib.loads(source)
    except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        raise FederationError(syntax_error(path, error)) from error
    return parse(document, source, path)


def parse(document: dict[str, Any], source: str, path: Path) -> Federation:
    """Return the federation in a TOML `document`; `source` and `path` are for naming the line of an error."""
    try:
        # Through JSON, strict mode takes TOML's arrays for tuples and still no "8" for 8. No key takes a date.
        text = json.dumps(document, default=lambda date: [str(date)])
        federation = Federation.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise FederationError(explain(error, Federation, source, path)) from error
    except (ValueError, RecursionError) as error:  # json's, of the same numbers and depths
        raise FederationError(syntax_error(path, error)) from error
    federation._path = path.absolute()
    return federation
