"""A whole run: the rounds one after the other, each kept and evaluated."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from codegen.tiers import SubModel, channel_order, nested, sub_model
from coordinator import advice
from coordinator.aggregation import Weights
from coordinator.boardlog import BoardLogs
from coordinator.desk import offers
from coordinator.errors import RunFailed, RunFileError
from coordinator.evaluation import Confusion, Evaluator, accuracy, per_class
from coordinator.events import (
    BoardOffered,
    CheckpointWritten,
    Evaluated,
    Event,
    Images,
    MethodChosen,
    Observer,
    PlanNoted,
    PortRefused,
    RunEnded,
    RunStarted,
    StoppedEarly,
)
from coordinator.federation import Federation
from coordinator.joining import Choice, joiner
from coordinator.journal import Journal, weights_sha256, write_durably
from coordinator.link.ports import Opener, open_port
from coordinator.nodes import LinkNode
from coordinator.pretty import pretty
from coordinator.quarantine import due, quarantined
from coordinator.report import SETTINGS, history, write_report
from coordinator.results import Inputs, Summary, earlier_seconds, headers, load, summarise, trained, write_keras
from coordinator.roster import AUTO, Roster, assemble, connected, introductions
from coordinator.rounds import Settings, run_round
from coordinator.shares import validation_share
from coordinator.state import State
from coordinator.stopping import fruitless, improves, ranking, standing

Judge = Callable[[Sequence[SubModel], Weights], dict[str, Confusion]]  # what every tier's slice answers

BARREN_ROUNDS = 3  # without enough answers, one after the other: a pulled cable must not use up the rest of the run


async def run(
    federation: Federation,
    ports: Sequence[str],
    folder: Path,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    pace: float = 1.0,
    open_port: Opener = open_port,
    insecure: bool = False,
) -> Summary:
    """Run all rounds on the nodes behind `ports` (names, URLs, or ["auto"]) and leave every file in `folder`.

    `pace`: how many times slower than its plan a node may be, more than a chip is; an emulator on a busy machine.
    `open_port` opens every port; time is the running loop's, so that a run may be simulated. `insecure`: as for
    roster.assemble.

    Raises RunFileError (the folder is in use, holds another run, cannot be written), RunFailed (no round could be
    aggregated), and what `roster.assemble` raises.
    """
    inputs = load(federation)
    dataset = inputs.dataset
    judges: dict[Images, Judge] = {}
    judges["test"] = Evaluator(dataset.decode(dataset.x_test), dataset.y_test, inputs.graph).confusion
    kept = validation_share(federation, dataset)
    if kept is not None:
        judges["validation"] = Evaluator(dataset.decode(kept.x), kept.y, inputs.graph).confusion
    with Journal(folder, resume) as journal:
        part = Part(inputs, journal, judges, observer)
        state = await part.train(ports, pace, open_port, insecure)
        return await asyncio.to_thread(part.finish, state)


def enough(federation: Federation, roster: Roster, auto: bool) -> None:
    """Raise what is wrong with the first port that was named, or else RunFailed, if a round cannot have its min_nodes
    answers: a run does not begin with the hope that somebody plugs in the rest."""
    least, nodes = federation.aggregation.min_nodes, roster.nodes
    if len(nodes) < least:
        if roster.refused and not auto:
            raise next(iter(roster.refused.values()))
        missing = {spec.name for spec in federation.nodes()} - {node.name for node in nodes}
        raise RunFailed(
            f"{len(nodes)} of {len(federation.nodes())} nodes are there and a round needs {least} (min_nodes in "
            f"{federation.path}); no port answers for {', '.join(sorted(missing))}"
            + "".join(f"; {error}" for error in roster.refused.values())
        )


def round_settings(federation: Federation) -> Settings:
    """Return what a round takes from the federation file."""
    training, aggregation = federation.training, federation.aggregation
    return Settings(
        seed=federation.seed,
        learning_rate=training.rate,
        momentum=training.momentum,
        epochs=training.epochs,
        batch=training.batch,
        nested=training.nested,
        logit_adjustment=training.logit_adjustment,
        encoding=federation.link.encoding,
        select=aggregation.select,
        min_nodes=aggregation.min_nodes,
        most_samples=federation.data.samples_per_node,
        plausible=aggregation.quarantine > 0,
        max_norm=training.max_gradient_norm,
        shift=training.shift,
        rehearsals=federation.rehearsal[1],
    )


class Part:
    """One coordinator process's part of a run; a resumed run has several."""

    def __init__(
        self, inputs: Inputs, journal: Journal, judges: Mapping[Images, Judge], observer: Observer | None = None
    ) -> None:
        """`judges` have the images that they are called after; where one has validation images, test's are for the
        end."""
        self._inputs = inputs
        self._journal = journal
        self._observer = observer
        self._logs = BoardLogs(journal.folder)
        self._fingerprint = inputs.fingerprint
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._before = earlier_seconds(journal.lines)
        self._judges = judges
        self._images: Images = "validation" if "validation" in judges else "test"  # of each round
        self._joiner = joiner(inputs)
        self._against: list[tuple[str, ...]] = []  # round by round, nodes whose updates pointed away from all others

    @property
    def _seconds(self) -> float:
        return self._before + self._loop.time() - self._started

    def emit(self, event: Event) -> None:
        """Journal an event, then show it; what boards say goes to their logs."""
        self._journal.write(event)
        self._logs(event)
        if self._observer is not None:
            self._observer(event)

    def last(self) -> tuple[int, State]:
        """Return the last finished round (0: none) and the state after it. Raises RunFileError."""
        journal = self._journal
        runs = journal.events(RunStarted)
        if runs and runs[0]["federation"] != self._fingerprint:
            raise RunFileError(
                f"{journal.folder}: this run began with another federation file, model or data "
                f"({str(runs[0]['federation'])[:12]}, now {self._fingerprint[:12]}); "
                "put them back to --resume it, or give the new run another --run"
            )
        return journal.last_checkpoint(self._inputs.shapes) or (0, self._inputs.state)

    async def train(
        self, ports: Sequence[str], pace: float = 1.0, open_port: Opener = open_port, insecure: bool = False
    ) -> State:
        """Run the rounds that are left on the nodes behind `ports` and return the state after them. Raises as `run`
        does."""
        federation, plans = self._inputs.federation, self._inputs.plans
        number, state = self.last()
        auto = list(ports) == [AUTO]
        roster = await assemble(federation, plans, ports, self.emit, pace, open_port, insecure)
        try:
            enough(federation, roster, auto)
            self.start(roster, number)
            state = await self.rounds(roster, number, state, pace)
        finally:
            await roster.close()
        if not self._journal.events(CheckpointWritten):  # a round that was aggregated and cut off there is not enough
            raise RunFailed(
                f"{self._journal.folder}: no round had {federation.aggregation.min_nodes} answers (min_nodes), so "
                "nothing was learnt; journal.jsonl there says why each node gave none"
            )
        return state

    def _earlier(self, number: int) -> Weights | None:
        """Return the weights that the last step, to those after round `number`, began with; None if there is none."""
        before = self._journal.last_checkpoint(self._inputs.shapes, before=number)
        return None if number == 0 else self._inputs.weights if before is None else before[1].weights

    def start(self, roster: Roster, number: int) -> None:
        """Journal that the run begins after round `number`: not before the nodes are there, so that a mistyped port
        leaves no run behind. Of ports that were not named, those that are silent are offered to be flashed."""
        federation = self._inputs.federation
        write_durably(self._journal.folder / SETTINGS, json.dumps(federation.settings(), indent=2).encode())
        names = tuple(spec.name for spec in federation.nodes())
        self.emit(RunStarted(federation.name, self._fingerprint, federation.training.rounds, names, number))
        for event in (*map(PlanNoted, self._inputs.notes), *introductions(federation, roster.nodes)):
            self.emit(event)
        for port, error in roster.refused.items():
            self.emit(PortRefused(port, str(error)))
        present = {node.name for node in roster.nodes}
        missing = [spec for spec in federation.nodes() if spec.name not in present]
        for port, command in offers(federation, missing, roster.silent).items():
            self.emit(BoardOffered(port, command))
        tiers: dict[str, list[tuple[int, ...]]] = {tier.name: [] for tier in federation.tier_list()}
        for node in roster.nodes:
            tiers.get(node.plan.sub_model.tier.name, []).append(node.label_counts)  # not of models of a node's own
        self._advise(number, advice.on_labels(tiers, federation))

    def _advise(self, number: int, found: Iterable[advice.Advice]) -> None:
        """Tell what has not been told yet."""
        for event in advice.due(self._journal.lines, number, found):
            self.emit(event)

    async def rounds(self, roster: Roster, number: int, state: State, pace: float) -> State:
        """Run the rounds after `number`; each is evaluated while the next one trains."""
        graph, settings = self._inputs.graph, dataclasses.replace(round_settings(self._inputs.federation), pace=pace)
        training = self._inputs.federation.training
        # Wakes up TensorFlow, too, which would hold up the links of a round.
        await asyncio.gather(self._catch_up(number), asyncio.to_thread(self._joiner.warm))
        evaluation: asyncio.Task[None] | None = None
        earlier = self._earlier(number)
        barren = 0  # rounds in a row that were not aggregated
        try:
            for current in range(number + 1, training.rounds + 1):
                if self._fruitless(current - 1):
                    self._stop(current - 1)
                    break
                free = self._free(roster, current)
                outcome = await run_round(current, graph, state, free, settings, self.emit, earlier, self._joiner)
                self._tell(current, outcome.choice)
                self._against.append(outcome.against)
                self._advise(current, advice.on_directions(self._against, self._inputs.federation))
                slices = self._slices(current, state.weights)
                if outcome.aggregated:  # else there is nothing new to keep, and --resume may do the round again
                    earlier, state = state.weights, outcome.state
                    self.emit(await asyncio.to_thread(self._journal.save, current, state))
                barren = 0 if outcome.aggregated else barren + 1
                if barren == BARREN_ROUNDS:
                    raise RunFailed(
                        f"{self._journal.folder}: {barren} rounds in a row had too few answers; look at the nodes, "
                        "then go on with --resume, which does these rounds again"
                    )
                if evaluation is not None:
                    await evaluation
                evaluation = asyncio.create_task(self._evaluate(current, state, slices))
                if training.patience:
                    await evaluation  # whether there is a next round hangs on it
            self._quarantine(roster.nodes, training.rounds + 1)
            if evaluation is not None:
                await evaluation
        finally:
            if evaluation is not None:
                evaluation.cancel()
        return state

    def _tell(self, number: int, choice: Choice | None) -> None:
        """Say what a round was joined by, if it was not the same before."""
        told = self._journal.events(MethodChosen)
        if choice is not None and (not told or told[-1]["method"] != choice.method):
            self.emit(MethodChosen(number, choice.method, choice.reason))

    def _free(self, roster: Roster, number: int) -> list[LinkNode]:
        """Return the nodes that take part in round `number`; who is there now and was not, or is kept out from here on,
        is told. Raises RunFailed if those that are kept out leave too few."""
        for node in roster.latecomers():
            self.emit(connected(node, self._inputs.federation))
        kept_out = self._quarantine(roster.nodes, number)
        free = [node for node in roster.nodes if node.name not in kept_out]
        least = self._inputs.federation.aggregation.min_nodes
        if kept_out and len(free) < least:
            raise RunFailed(
                f"{self._journal.folder}: {', '.join(sorted(kept_out))} quarantined, so {len(free)} nodes are left and "
                f"a round needs {least} (min_nodes); journal.jsonl there says what each did: mend it, then begin "
                "another --run"
            )
        return free

    def _quarantine(self, nodes: Sequence[LinkNode], number: int) -> set[str]:
        """Return the nodes that take no part in round `number`; those that do not from here on are told."""
        offences = self._inputs.federation.aggregation.quarantine
        for event in due(self._journal.lines, [node.name for node in nodes], number, offences):
            self.emit(event)
        return quarantined(self._journal.lines)

    async def _catch_up(self, last: int) -> None:
        """Evaluate what has not been: the untrained model, or rounds whose evaluation a crash cut off."""
        done = {line["round"] for line in self._journal.events(Evaluated)}
        before = self._inputs.weights
        kept = {line["round"]: line for line in self._journal.events(CheckpointWritten) if line["round"] <= last}
        if 0 not in done:
            await self._evaluate(0, self._inputs.state, self._slices(1, before))
        for number, line in sorted(kept.items()):
            after = self._journal.read_checkpoint(line, self._inputs.shapes)
            if after is not None and number not in done:
                await self._evaluate(number, after, self._slices(number, before))
            before = after.weights if after is not None else before

    def _fruitless(self, number: int) -> bool:
        """Tell whether round `number` is the last because too many have not been better on the validation images."""
        patience = self._inputs.federation.training.patience
        return 0 < patience <= fruitless(self._journal.lines, number)

    def _stop(self, number: int) -> None:
        if not self._journal.events(StoppedEarly):  # else this is a run that had stopped before it was resumed
            best = ranking(self._journal.lines, number)[0]
            patience = self._inputs.federation.training.patience
            held = f"{100 * best.accuracy:.2f} % of the validation images after round {best.round}"
            self.emit(StoppedEarly(number, f"{held} is still the best, {patience} rounds later (patience)"))

    async def _evaluate(self, number: int, state: State, slices: Sequence[SubModel]) -> None:
        started = self._loop.time()
        counted = await asyncio.to_thread(self._answers, self._images, slices, state)
        self.emit(self._evaluated(number, self._images, counted, self._loop.time() - started))
        rounds = [row.accuracy for row in history(self._journal.lines) if row.round > 0]
        self._advise(number, advice.on_slices(rounds, self._inputs.graph.classes, self._inputs.federation))

    def _answers(self, images: Images, slices: Sequence[SubModel], state: State) -> dict[str, Confusion]:
        """Return what every tier's slice answers, and every model that nodes have of their own."""
        judge = self._judges[images]
        counted = judge(slices, state.result)
        for name, own in self._inputs.own.items():
            counted |= judge([own.cut], state.own[name])
        return counted

    def _evaluated(self, number: int, images: Images, counted: dict[str, Confusion], seconds: float) -> Evaluated:
        shares = {tier: accuracy(matrix) for tier, matrix in counted.items()}
        best = images == "validation" and improves(self._journal.lines, standing(number, shares))
        last = number == self._inputs.federation.training.rounds or images != self._images
        kept = best or last or self._fruitless(number)
        return Evaluated(
            number, shares, seconds, images,
            per_class={tier: per_class(matrix) for tier, matrix in counted.items()},
            confusion={tier: matrix.tolist() for tier, matrix in counted.items()} if kept else {},
        )  # fmt: skip

    def _slices(self, number: int, before: Weights) -> list[SubModel]:
        """Return every tier's slice as round `number` cut it, which began with weights `before`; widest first."""
        graph, select = self._inputs.graph, self._inputs.federation.aggregation.select
        order = channel_order(graph, select, number, before)
        return [sub_model(graph, tier, order) for tier in nested(graph, self._inputs.federation.tier_list())]

    def finish(self, state: State) -> Summary:
        """Write the models, the headers, the summary and the report: of the best round by the validation images, or
        else of `state`, the last round's."""
        folder, federation = self._journal.folder, self._inputs.federation
        state = self._chosen(state)
        write_keras(trained(federation, state.result), folder / "global.keras")
        for name, weights in state.own.items():
            write_keras(trained(federation, weights, name), folder / f"model_{name}.keras")
        for tier, header in headers(self._inputs, state).items():
            write_durably(folder / f"model_{tier}.h", header.encode())
        return self.end(state.result)

    def _chosen(self, state: State) -> State:
        """Return the state after the best round by the validation images, having put it to the test; without such
        images, `state`. A round whose checkpoint is gone is passed over."""
        kept = {line["round"]: line for line in self._journal.events(CheckpointWritten)}
        for best in ranking(self._journal.lines, self._inputs.federation.training.rounds):
            line = kept.get(best.round)
            found = None if line is None else self._journal.read_checkpoint(line, self._inputs.shapes)
            chosen = self._inputs.state if best.round == 0 else found
            if chosen is not None:
                before = self._earlier(best.round) or self._inputs.weights
                counted = self._answers("test", self._slices(max(best.round, 1), before), chosen)
                self.emit(self._evaluated(best.round, "test", counted, 0.0))
                return chosen
        return state

    def end(self, weights: Weights) -> Summary:
        """Journal that the run is over; write the summary and the report."""
        federation, folder, digest = self._inputs.federation, self._journal.folder, weights_sha256(weights)
        stopped = [line["round"] for line in self._journal.events(StoppedEarly)]
        self.emit(RunEnded(stopped[-1] if stopped else federation.training.rounds, self._seconds, digest))
        summary = summarise(self._inputs, self._journal.lines, self._fingerprint, digest, self._seconds)
        write_durably(folder / "summary.json", (pretty(dataclasses.asdict(summary)) + "\n").encode())
        write_report(folder)
        return summary
