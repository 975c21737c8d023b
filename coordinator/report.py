"""A run as one HTML page, made from what it journaled: no network, no script."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import RunFileError
from .events import (
    Evaluated,
    Images,
    MethodChosen,
    NodeConnected,
    NodeMissing,
    NodeTraffic,
    RoundAggregated,
    RunEnded,
    RunStarted,
)
from .journal import Line, of_kind, read_journal, write_durably
from .plot import line_plot
from .pretty import spans
from .report_classes import class_section
from .stopping import ranking
from .tally import Tally, tally

LIVE_PICTURE = "live.svg"  # in the run's folder: the live table as it looked in the last round
SETTINGS = "federation.json"  # in the run's folder: the federation file, defaults written out


@dataclass
class NodeLine:
    """A line of the node table; text, ready to show."""

    name: str
    board: str = ""
    tier: str = ""
    samples: str = ""
    batch: str = ""
    encoding: str = ""
    proxy: int = 0
    rounds: int = 0
    refused: int = 0
    loss: str = ""


@dataclass(frozen=True)
class LinkLine:
    """A line of the link table; text, ready to show."""

    name: str
    bytes_down: str
    bytes_up: str
    goodput: str
    round_trip: str
    retransmissions: int
    node_rejected: int
    frames_rejected: int
    resets: int


@dataclass(frozen=True)
class RoundLine:
    """A line of the accuracy table; round 0 is the model before training."""

    round: int
    accuracy: dict[str, float]
    answered: str
    seconds: str


def write_report(folder: Path) -> Path:
    """Write report.html into a run's folder and return its path. Raises RunFileError if nothing was journaled there."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    lines = _journal(folder)
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.get_template("report.html.j2").render(_content(folder, lines))
    path = folder / "report.html"
    write_durably(path, page.encode())
    return path


def write_pictures(run: Path, folder: Path) -> list[Path]:
    """Write accuracy.svg and, if the run kept a frame of its table, live.svg to `folder`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    accuracy, lines = folder / "accuracy.svg", _journal(run)
    accuracy.write_text(accuracy_plot(history(lines), _by(lines)), encoding="utf-8")
    if not (run / LIVE_PICTURE).is_file():
        return [accuracy]
    return [accuracy, Path(shutil.copyfile(run / LIVE_PICTURE, folder / LIVE_PICTURE))]


def accuracy_plot(rounds: list[RoundLine], images: Images = "test") -> str:
    """Return accuracy on `images` by round, a line a tier, as SVG. The untrained model is left out: it would flatten
    the rest."""
    shown = [row for row in rounds if row.round > 0] or rounds
    tiers = list(dict.fromkeys(tier for row in shown for tier in row.accuracy))
    lines = {tier: [(row.round, row.accuracy[tier]) for row in shown if tier in row.accuracy] for tier in tiers}
    return line_plot(lines, "round", f"{images} accuracy (error on a log scale)")


def _journal(folder: Path) -> list[Line]:
    path = folder / "journal.jsonl"
    if not path.is_file():
        raise RunFileError(f"{folder}: no journal.jsonl; expected the folder of a run, such as runs/demo")
    lines, _ = read_journal(path)
    if not of_kind(lines, RunStarted):
        raise RunFileError(f"{path}: no run has started in it")
    return lines


def _content(folder: Path, lines: list[Line]) -> dict[str, Any]:
    started, ended = of_kind(lines, RunStarted), of_kind(lines, RunEnded)
    rounds, settings = history(lines), _settings(folder)
    evaluated = of_kind(lines, Evaluated)
    tests = [line for line in evaluated if line.get("images", "test") == "test"]
    by = _by(lines)
    stood = ranking(lines, max((row.round for row in rounds), default=0))
    return {
        "name": started[0]["name"],
        "begun": datetime.fromtimestamp(started[0]["time"]).strftime("%Y-%m-%d %H:%M"),
        "rounds": started[-1]["rounds"],
        "rounds_done": len({line["round"] for line in of_kind(lines, RoundAggregated)}),
        "seconds": f"{ended[-1]['seconds']:.1f} s" if ended else None,
        "ended": bool(ended),
        "accuracy": (tests or evaluated)[-1]["accuracy"] if evaluated else {},
        "images": (tests or evaluated)[-1].get("images", "test") if evaluated else "",
        "by": by,
        "best": stood[0] if stood else None,
        "plot": accuracy_plot(rounds, by),
        "classes": class_section(lines, evaluated, settings.get("training", {}).get("nested", True)),
        "warnings": warnings(lines),
        "nodes": node_table(lines),
        "links": link_table(lines),
        "joined": joined(lines),
        "history": rounds,
        "settings": _setting_rows(settings, started[-1], ended),
    }


def _by(lines: list[Line]) -> Images:
    """Return which images the rounds were judged by."""
    judged = {line.get("images") for line in of_kind(lines, Evaluated)}
    return "validation" if "validation" in judged else "test"


def history(lines: list[Line]) -> list[RoundLine]:
    """Return the evaluated rounds, in order; of a round run twice (after a crash) the later one counts. What the test
    images say at the end of a run that has validation images is none of them."""
    aggregated = {line["round"]: line for line in of_kind(lines, RoundAggregated)}
    by = _by(lines)
    evaluated = {line["round"]: line for line in of_kind(lines, Evaluated) if line.get("images", "test") == by}
    rows = []
    for number, line in sorted(evaluated.items()):
        done = aggregated.get(number)
        answered, seconds = (str(len(done["answered"])), f"{done['seconds']:.1f}") if done else ("", "")
        rows.append(RoundLine(number, line["accuracy"], answered, seconds))
    return rows


def node_table(lines: list[Line]) -> list[NodeLine]:
    """Return every node of the federation, in its order, with what it did over the whole run."""
    nodes = {name: NodeLine(name) for line in of_kind(lines, RunStarted) for name in line["nodes"]}
    for line in of_kind(lines, NodeMissing):
        nodes.setdefault(line["node"], NodeLine(line["node"])).board = line["board"]
    for line in of_kind(lines, NodeConnected):
        node = nodes.setdefault(line["node"], NodeLine(line["node"]))
        node.board, node.tier, node.encoding = line["board"], line["tier"], line["encoding"]
        node.samples, node.batch = f"{line['samples']:,}", str(line["batch"])
        node.proxy = line.get("proxy", 0)
    for name, node in nodes.items():
        did = tally(lines, name)
        node.rounds, node.refused = did.rounds, did.refused
        node.loss = "" if did.loss is None else f"{did.loss:.4f}"
    return list(nodes.values())


def joined(lines: list[Line]) -> list[str]:
    """Return by what the updates were joined, from which round on and why; a sentence each."""
    chosen = {line["round"]: line for line in of_kind(lines, MethodChosen)}  # of a round run twice the later one
    return [
        f"From round {number} on updates are joined by {line['method']}: {line['reason']}."
        for number, line in sorted(chosen.items())
    ]


def link_table(lines: list[Line]) -> list[LinkLine]:
    """Return what the wire of every node that was there carried over the whole run."""
    there = {line["node"] for line in of_kind(lines, NodeTraffic)}
    return [_link(node.name, tally(lines, node.name)) for node in node_table(lines) if node.name in there]


def _link(name: str, did: Tally) -> LinkLine:
    return LinkLine(
        name=name,
        bytes_down=f"{did.bytes_down / 1000:,.1f}",
        bytes_up=f"{did.bytes_up / 1000:,.1f}",
        goodput="" if did.goodput is None else f"{did.goodput / 1000:,.1f}",
        round_trip="" if did.round_trip is None else f"{1000 * did.round_trip:.1f}",
        retransmissions=did.retransmissions,
        node_rejected=did.node_rejected,
        frames_rejected=did.frames_rejected,
        resets=did.resets,
    )


def warnings(lines: list[Line]) -> list[str]:
    """Return what there is to know beside the figures, above all what went wrong and was survived; a sentence each.

    What is the same in several rounds is said once.
    """
    found: dict[tuple[str, str], list[int]] = {}  # what stands before and after the rounds, and those
    for line in lines:
        said = _warning(line)
        if said is not None:
            found.setdefault(said, []).append(line.get("round", 0))
    sentences = (before + (_rounds(rounds) if after else "") + after for (before, after), rounds in found.items())
    return [sentence[:1].upper() + sentence[1:] if sentence.startswith("round") else sentence for sentence in sentences]


def _warning(line: Line) -> tuple[str, str] | None:
    """Return what stands before and after the number of the round, or a whole sentence and ""; None: nothing."""
    match line["event"]:
        case "plan_noted":
            return f"{line['text'][:1].upper()}{line['text'][1:]}.", ""
        case "node_missing":
            return f"{line['node']}: no port answered for this {line['board']}.", ""
        case "node_failed":
            return "", f" went on without {line['node']}: {line['reason']}."
        case "node_lost":
            return f"{line['node']} was lost in ", f": {line['reason']}."
        case "node_refused":
            return "", f" did not take the update of {line['node']}: {line['reason']}."
        case "node_quarantined":
            return f"{line['node']} is quarantined since ", f": {line['reason']}."
        case "node_answered" if line.get("saturated"):
            held = f"a weight or logit was held at its limit {line['saturated']:,} times"
            return f"{line['node']}: {held} in ", "."
        case "round_aggregated" if not line["aggregated"]:
            return "Nothing was aggregated in ", f": {line['reason']}."
        case "run_started" if line.get("after_round"):
            return f"The run was interrupted, and went on after round {line['after_round']}.", ""
        case "warned":
            return f"After round {line['round']}: {line['message']}.", ""
        case "stopped_early":
            return f"The run ended after round {line['round']}: {line['reason']}.", ""
    return None


def _rounds(numbers: list[int]) -> str:
    return f"round{'s' if len(set(numbers)) > 1 else ''} {spans(numbers)}"


def _settings(folder: Path) -> dict[str, Any]:
    """Return the federation file, defaults written out, that the run has kept; {} if it cannot be read."""
    try:
        tables = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return tables if isinstance(tables, dict) else {}


def _setting_rows(tables: dict[str, Any], started: Line, ended: list[Line]) -> list[tuple[str, str]]:
    rows = []
    for table, value in tables.items():
        if isinstance(value, dict):
            rows += [(f"{table}.{key}", _shown(inner)) for key, inner in value.items() if inner is not None]
        else:
            rows.append((table, _shown(value)))
    rows.append(("federation file, SHA-256", started["federation"]))
    rows += [("global weights, SHA-256", line["weights_sha256"]) for line in ended[-1:]]
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return ", ".join(" ".join(str(part) for part in item.values() if part is not None) for item in value)
    return value if isinstance(value, str) else json.dumps(value)
