"""What several commands share: options, tables, the federation file that is meant when none is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ..pretty import pretty

if TYPE_CHECKING:
    from ..federation import Federation

FederationOption = Annotated[
    Path | None,
    typer.Option(
        "--federation",
        "-f",
        metavar="FILE",
        envvar="TIERFED_FEDERATION",
        help="Federation file. [default: federation.toml here, else the MNIST example]",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class ManyPorts(TyperCommand):
    """A command whose --ports takes every word up to the next option: `--ports /dev/ttyUSB0 /dev/ttyACM0 --resume`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its words, which is how click takes a list."""
        return super().parse_args(ctx, spread("--ports", args))


def spread(option: str, arguments: Sequence[str]) -> list[str]:
    """Return `arguments` with `option A B` and `option A,B` written as `option A option B`."""
    result: list[str] = []
    taking = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument == option or (name == option and equals):
            taking = True
            words = [value] if equals else []
        elif argument.startswith("-") or not taking:
            taking = False
            result.append(argument)
            continue
        else:
            words = [argument]
        for word in words:
            result += [part for piece in word.split(",") if piece for part in (option, piece)]
    return result if option in result or option not in arguments else [*result, option]


def open_federation(path: Path | None) -> Federation:
    """Return the federation file that the user named, or the nearest default."""
    from boards import PROJECT_ROOT

    from ..federation import load

    local = Path("federation.toml")
    return load(path or (local if local.is_file() else PROJECT_ROOT / "examples" / "mnist" / "federation.toml"))


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(pretty(value), flush=True)  # emulate goes on after it


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print aligned columns, the first `left` of them to the left and the rest to the right; the last is not padded."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, ["─" * width for width in widths], *rows):
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths, strict=False)]
        cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        print("  ".join([*cells[:-1], row[-1]]))
