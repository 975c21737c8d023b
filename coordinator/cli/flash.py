"""`coordinator flash`: a node's image onto its board."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .options import FederationOption, JsonOption, open_federation, print_json, print_table

if TYPE_CHECKING:
    from ..desk import Plugged
    from ..federation import Federation, NodeSpec
    from ..flashing import Flasher

SHARDS = Path(".tierfed") / "flashed"  # what is compiled into images


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("flash")(flash)


def flash(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A node of the federation, or a board that only one node has."),
    ] = None,
    port: Annotated[str | None, typer.Option("--port", "-p", help="Its port. [default: found by its USB id]")] = None,
    every: Annotated[bool, typer.Option("--all", help="Flash every node whose board is plugged in.")] = False,
    federation: FederationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the image of a node, with its tier, samples and id, upload it, and see that the board answers."""
    import asyncio

    if every and (name or port):
        raise UsageError("--all finds every node's board by itself; expected neither a NAME nor --port with it")
    settings = open_federation(federation)
    specs = settings.nodes() if every else [node(settings, name or _ask("which node?", _names(settings)))]
    rows, code = asyncio.run(_flash(settings, specs, port, every))
    if as_json:
        print_json(rows)
    else:
        cells = [[str(value) for key, value in row.items() if key != "uid"] for row in rows]
        print_table(["node", "board", "port", "tier", "samples", "result"], cells, left=4)
    raise typer.Exit(code)


def node(federation: Federation, name: str) -> NodeSpec:
    """Return the node that is meant by its name or, if only one has it, by its board. Raises UsageError."""
    specs = federation.nodes()
    named = [spec for spec in specs if spec.name == name] or [spec for spec in specs if spec.board == name]
    if len(named) == 1:
        return named[0]
    what = f"{len(named)} nodes have this board" if named else f"no node of {federation.path}"
    raise UsageError(f"{name}: {what}; expected one of {', '.join(spec.name for spec in named or specs)}")


def _names(federation: Federation) -> list[str]:
    return [spec.name for spec in federation.nodes()]


async def _flash(
    federation: Federation, specs: Sequence[NodeSpec], port: str | None, every: bool
) -> tuple[list[dict[str, Any]], int]:
    """Flash the nodes one after the other; return a row each, and the exit code."""
    import asyncio

    from ..desk import assign, survey
    from ..flashing import Flasher
    from ..platformio import seed
    from ..results import load

    _say("reading the model and the data …")
    inputs = await asyncio.to_thread(load, federation)
    await asyncio.to_thread(seed)
    flasher = Flasher(inputs, SHARDS / federation.name, _say)
    if not every:
        (spec,) = specs
        return [await _one(flasher, spec, port or await _find(federation, spec))], 0
    _say("asking every port who is there …")
    found = assign(specs, await survey())
    rows, codes = [], []
    for spec in specs:
        row, code = await _tried(flasher, spec, found[spec.name], inputs.plans[spec.kind].sub_model.tier.name)
        rows.append(row)
        codes.append(code)
    return rows, next((code for code in codes if code), 0)


async def _one(flasher: Flasher, spec: NodeSpec, port: str) -> dict[str, Any]:
    flashed = await flasher.flash(spec, port)
    return _row(spec, flashed.port, flashed.tier, flashed.samples, "flashed, and answers", flashed.uid)


async def _tried(flasher: Flasher, spec: NodeSpec, place: Plugged | None, tier: str) -> tuple[dict[str, Any], int]:
    """Flash a node; return its row, and the exit code of what went wrong."""
    from ..errors import exit_code, sentence
    from ..link.errors import PortError

    held = flasher.held[spec.name].samples if spec.name in flasher.held else 0
    try:
        if place is None:
            raise PortError(f"no port looks like a free {spec.board}")
        return await _one(flasher, spec, place.port.name), 0
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        said = sentence(error)
        if place is not None:
            _say(f"{spec.name}: {said}")
        return _row(spec, place.port.name if place else "", tier, held, said.splitlines()[0], ""), code


def _row(spec: NodeSpec, port: str, tier: str, samples: int, result: str, uid: str) -> dict[str, Any]:
    return {
        "node": spec.name, "board": spec.board, "port": port, "tier": tier, "samples": samples, "uid": uid,
        "result": result,
    }  # fmt: skip


async def _find(federation: Federation, spec: NodeSpec) -> str:
    """Return the port of the node's board. Raises PortError if there is none, UsageError if there are several."""
    import boards

    from ..desk import places, survey
    from ..link.errors import PortError

    _say(f"asking every port that {spec.board} may be at who is there …")
    found = [each.port.name for each in places(spec, federation.nodes(), await survey())]
    if not found:
        usb = ", ".join(boards.load(spec.board).training.usb) or "none are known"
        raise PortError(f"no port looks like a free {spec.board} (USB ids: {usb}); name it with --port, or plug it in")
    return found[0] if len(found) == 1 else _ask(f"which port is {spec.name}'s?", found, "--port")


def _ask(question: str, answers: Sequence[str], option: str = "NAME") -> str:
    """Return the one of `answers` that whoever sits at the terminal chooses. Raises UsageError where nobody does."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question} expected {option}: one of {', '.join(answers)}")
    for number, answer in enumerate(answers, 1):
        print(f"{number:3}  {answer}", file=sys.stderr)
    chosen = int(typer.prompt(question, type=int, err=True))
    if not 1 <= chosen <= len(answers):
        raise UsageError(f"{chosen}: expected a number from 1 to {len(answers)}")
    return answers[chosen - 1]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
