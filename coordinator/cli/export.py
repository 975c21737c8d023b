"""`coordinator export`: a run's global model and its tiers as files for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .options import FederationOption, JsonOption, open_federation, print_json
from .run import counting, latest_run, run_folder

if TYPE_CHECKING:
    from ..export import Representative, Written


class FormatName(StrEnum):
    """What is written."""

    KERAS = "keras"
    TFLITE = "tflite"
    HEADER = "header"


class KernelName(StrEnum):
    """The arithmetic of a header."""

    AUTO = "auto"
    F32 = "f32"
    FIXED = "fixed"


KERNELS: dict[KernelName, Literal["f32", "fixed"] | None] = {
    KernelName.AUTO: None,
    KernelName.F32: "f32",
    KernelName.FIXED: "fixed",
}


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("export")(export)


def export(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run's folder, or its name below runs/. [default: the latest]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write to. [default: export/ in the run's]")
    ] = None,
    tier: Annotated[
        list[str] | None, typer.Option("--tier", metavar="NAME", help="Only this tier, or global; may be repeated.")
    ] = None,
    format: Annotated[
        list[FormatName] | None, typer.Option("--format", help="Only this format; may be repeated. [default: all]")
    ] = None,
    round: Annotated[
        str | None,
        typer.Option(
            "--round",
            metavar="N",
            help="A round's number, best, or last. [default: best if there are validation images, else last]",
        ),
    ] = None,
    kernel: Annotated[
        KernelName, typer.Option("--kernel", help="Arithmetic of headers; auto: that of the boards that hold the tier.")
    ] = KernelName.AUTO,
    federation: FederationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's global model and tiers as Keras, 8-bit TFLite, and C that only infers; try each on test images."""
    from .. import export as exporting
    from ..results import load

    folder = latest_run() if run is None else Path(run) if Path(run).is_dir() else run_folder(run)
    inputs = load(open_federation(federation))
    kept = exporting.kept(folder, inputs, round)
    names = list(dict.fromkeys(tier or ()))
    formats = [each for each in exporting.FORMATS if each in (format or exporting.FORMATS)]
    with counting("exporting", len(names) or 1 + len(kept.slices)) as watch:
        written = exporting.export(
            inputs, kept, out or folder / "export", names, formats, KERNELS[kernel], watch
        )
    if as_json:
        from dataclasses import asdict

        print_json({"run": str(folder), "round": kept.round, "files": [asdict(each) for each in written]})
        return
    _show(written, exporting.representative(inputs))
    print(f"Round {kept.round} of {folder}; accuracy on {len(inputs.dataset.y_test):,} test images.")


def _show(written: Sequence[Written], seen: Representative) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for head, right in (("tier", False), ("format", False), ("bytes", True), ("accuracy", True), ("file", False)):
        table.add_column(head, justify="right" if right else "left", no_wrap=True)
    for each in written:
        accuracy = "" if each.accuracy is None else f"{100 * each.accuracy:.2f} %"
        table.add_row(each.tier, each.format, f"{each.bytes:,}", accuracy, Path(each.path).name)
    Console(highlight=False).print(table)
    for format, note in dict.fromkeys((each.format, each.note) for each in written):
        tiers = [each.tier for each in written if (each.format, each.note) == (format, note)]
        print(f"{format} ({', '.join(tiers)}): {note}")
    print(f"Ranges of 8 bits were chosen by {seen.words}.")
