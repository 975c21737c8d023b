"""The command line. Commands are thin, and import what they need only when they run: `--help` loads none of it."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence

import typer

from .. import errors
from . import data, export, flash, keys, log, plan, ports, run

app = typer.Typer(
    name="coordinator",
    help="Federated learning in which every microcontroller trains a model of its own size.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich doubles the time to --help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.register(app)
ports.register(app)
flash.register(app)
log.register(app)
keys.register(app)
plan.register(app)
data.register(app)
export.register(app)

_CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, wherever this typer keeps it
_TYPER_INTERRUPTED = 130  # what it makes of Ctrl-C


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code; a user's error is one sentence on stderr (docs/cli.md)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show … gets a ?, not a traceback
            stream.reconfigure(errors="replace")
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = app(args=arguments, prog_name="coordinator", standalone_mode=False)
        return _interrupted() if code == _TYPER_INTERRUPTED else code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:  # `coordinator plan | head`: nobody is reading, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report(error)


def _interrupted() -> int:
    print("coordinator: interrupted", file=sys.stderr)
    return errors.INTERRUPTED


def _report(error: Exception) -> int:
    if isinstance(error, _CLICK_ERROR):
        error.show()  # type: ignore[attr-defined]
        return errors.UsageError.exit_code
    code = errors.exit_code(error)
    if code is None:
        traceback.print_exception(error)
        print("coordinator: that is a bug in Tierfed; please report it with the lines above", file=sys.stderr)
        return errors.INTERNAL
    print(f"coordinator: {errors.sentence(error)}", file=sys.stderr)
    return code
