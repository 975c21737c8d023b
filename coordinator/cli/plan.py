"""`coordinator boards`, `plan` and `generate`: what hardware there is, what fits it, and its C header."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .options import FederationOption, JsonOption, open_federation, print_json, print_table

if TYPE_CHECKING:
    from codegen.graph import Graph
    from codegen.planner import Plan

    from ..federation import Federation
    from ..global_model import OwnModel

BoardsOption = Annotated[
    list[str] | None, typer.Option("--board", "-b", metavar="BOARD", help="Only this board; may be repeated.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("plan")(plan)
    app.command("boards")(boards)
    app.command("generate")(generate)


def boards(as_json: JsonOption = False) -> None:
    """List the boards that are known."""
    import boards as package

    found = package.all_boards()
    if as_json:
        print_json([asdict(board) for board in found])
        return
    rows = [
        [
            board.id,
            board.name,
            board.mcu,
            f"{board.frequency_hz / 1e6:g}",
            f"{board.ram:,}",
            f"{board.flash:,}",
            board.training.kernel,
            f"{board.training.bauds[-1]}",
            f"{board.training.mtu} × {board.training.window}",
        ]
        for board in found
    ]
    print_table(["board", "name", "MCU", "MHz", "RAM", "flash", "kernel", "baud", "mtu × window"], rows, left=3)


def plan(federation: FederationOption = None, board: BoardsOption = None, as_json: JsonOption = False) -> None:
    """Show what every tier costs on every board: bytes, time, and whether it fits. The arrow marks the tier chosen."""
    settings = open_federation(federation)
    rows, notes = plan_rows(settings, board)
    if as_json:
        print_json(rows)
        return
    head = ["board", "tier", "", "RAM", "of", "flash", "of", "batch", "step", "round", "samples", "fits"]
    if settings.proxy.images:
        head.insert(-1, "proxy images")
    print_table(head, [_cells(row, len(head)) for row in rows], left=3)
    if notes:
        print("", *notes, sep="\n")


def plan_rows(
    federation: Federation, board_ids: Sequence[str] | None = None
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return one row for every board × tier, what `coordinator plan --json` prints; and what else there is to say."""
    import boards as package

    from ..global_model import global_model, own_models

    found = [package.load(board_id) for board_id in board_ids] if board_ids else package.all_boards()
    model = global_model(federation, board_ids)
    own = own_models(federation, model.graph)
    return [row for board in found for row in _board_rows(board, model.graph, own.values(), federation)], model.notes


def _board_rows(
    board: Any, graph: Graph, own: Iterable[OwnModel], federation: Federation
) -> Iterator[dict[str, Any]]:
    """Yield a board's rows: every tier of the global model, then the models that nodes have of their own."""
    from codegen import planner

    tiers, settings = federation.tier_list(), federation.plan_settings()
    plans = [planner.plan(board, graph, tiers, tier, settings) for tier in tiers]
    plans += [planner.plan(board, each.graph, [each.tier], each.tier, settings) for each in own]
    chosen = {spec.own for spec in federation.nodes() if spec.board == board.id}
    with contextlib.suppress(planner.PlanError):
        chosen.add(planner.best(board, graph, tiers, settings).sub_model.tier.name)
    samples, epochs = federation.data.samples_per_node, federation.training.epochs
    for made in plans:
        wanted = made.fits and made.sub_model.tier.name in chosen
        yield _row(made, made.round_seconds(samples, epochs), wanted)


def _row(made: Plan, round_seconds: float, chosen: bool) -> dict[str, Any]:
    from codegen.proxies import words

    return {
        "board": made.board.id,
        "source": made.source,
        "tier": made.sub_model.tier.name,
        "chosen": chosen,
        "fits": made.fits,
        "reason": made.reason,
        "missing_bytes": made.missing_bytes,
        "ram": made.ram,
        "ram_limit": made.ram_limit,
        "ram_parts": made.ram_parts,
        "flash": made.flash,
        "flash_limit": made.flash_limit,
        "batch": made.batch,
        "concessions": made.concessions,
        "frozen": [layer.name for layer in made.sub_model.graph.layers if layer.weighted and not layer.trainable],
        "accumulates": made.accumulates,
        "keeps_origin": made.keeps_origin,
        "macs": made.macs,
        "step_seconds": made.step_seconds,
        "round_seconds": round_seconds,
        "samples_in_flash": made.samples_in_flash,
        "proxy": made.proxy,
        "proxy_images": words(made) if made.fits else "",
    }


def _cells(row: dict[str, Any], columns: int) -> list[str]:
    cells = [
        row["board"] if row["source"] == "flash" else f"{row['board']} ({row['source']})",
        row["tier"],
        "◀" if row["chosen"] else "",
        f"{row['ram']:,}",
        f"{row['ram_limit']:,}",
        f"{row['flash']:,}",
        f"{row['flash_limit']:,}",
        f"{row['batch']}",
        seconds(row["step_seconds"]),
        seconds(row["round_seconds"]),
        f"{row['samples_in_flash']:,}" if row["fits"] else "–",
        row["proxy_images"] or "–",
        "; ".join(("yes", *row["concessions"])) if row["fits"] else f"no, {row['missing_bytes']:,} bytes short",
    ]
    return cells if len(cells) == columns else [*cells[:-2], cells[-1]]


def seconds(value: float) -> str:
    """Return a duration with three digits and a unit: 412 µs, 1.57 ms, 24.1 s, 12.3 min."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")):
        if value < limit:
            return f"{value * factor:.3g} {unit}"
    return f"{value / 3600:.3g} h"


def generate(
    board: Annotated[str, typer.Option("--board", "-b", help="Board id; `coordinator boards` lists them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for model.h and protocol.h.")],
    federation: FederationOption = None,
    model: Annotated[str, typer.Option("--model", help="The model of its own that a node of this board names.")] = "",
) -> None:
    """Write a board's model.h and protocol.h, each only if it changed; PlatformIO's pre-build script runs this."""
    import boards as package
    from codegen.build import generate as write

    from ..federation import own_name
    from ..global_model import global_model, own_models

    settings = open_federation(federation)
    target, whole, tiers = package.load(board), global_model(settings), settings.tier_list()
    graph, weights = whole.graph, whole.weights
    if model:
        if model not in (spec.model for spec in settings.nodes()):
            raise UsageError(f'--model {model}: no node of {settings.path} names it; expected model = "{model}" there')
        graph, weights, tier = own_models(settings, graph)[own_name(model)]
        tiers = (tier,)
    made = write(target, graph, weights, tiers, settings.plan_settings(), out)
    print_json(
        {
            "board": target.id,
            "tier": made.sub_model.tier.name,
            "model_hash": f"{made.model_hash:08x}",
            "mtu": target.training.mtu,
            "window": target.training.window,
            "kernel": target.training.kernel,
            "ram": made.ram,
            "flash": made.flash,
            "samples_in_flash": made.samples_in_flash,
        }
    )
