"""What can go wrong in a user's hands, and the exit code of each kind (docs/cli.md).

codegen and boards stand below this package and cannot import it, so their ValueErrors are known here by name. Exit
codes stay below 126, which shells keep for commands that they cannot run or that a signal ended.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

INTERNAL = 1  # a bug of ours: a traceback is shown
INTERRUPTED = 20  # Ctrl-C


class TierfedError(Exception):
    """One sentence for the user: where, what was found, what was expected, what to type."""

    exit_code: ClassVar[int] = INTERNAL


class UsageError(TierfedError):
    """The command line cannot be carried out as it stands."""

    exit_code = 2


class FederationError(TierfedError):
    """The federation file is absent, is no TOML, or holds a wrong key, type or value."""

    exit_code = 3


class DataError(TierfedError):
    """A data set or shard is absent, damaged, or not what the federation file says."""

    exit_code = 6


class FirmwareMismatch(TierfedError):  # noqa: N818 - it says what is wrong
    """A board whose firmware is not what this federation needs; the message names both and the command to rebuild."""

    exit_code = 8


class RunFailed(TierfedError):  # noqa: N818 - the run failed; nothing was wrong with what was asked
    """The run ended without a model: too few nodes answered, or none could be reached."""

    exit_code = 9


class RunFileError(TierfedError):
    """A file of the run directory could not be written or read: disk full, read-only, damaged journal."""

    exit_code = 10


class ToolchainError(TierfedError):
    """PlatformIO, a compiler or another program that is needed is missing or failed."""

    exit_code = 11


class KeyFileError(TierfedError):
    """A node's key cannot be read or written, is no key, or others may read it."""

    exit_code = 14


# Errors of packages that must not import this one, and of coordinator.link, which stands alone: package, class.
FOREIGN = {
    ("codegen", "ModelError"): 4,
    ("codegen", "TierError"): 4,
    ("codegen", "PlanError"): 5,
    ("coordinator", "PortError"): 7,
    ("boards", "BoardError"): 12,
    ("coordinator", "LinkError"): 13,
    ("coordinator", "AuthenticationError"): 14,
    ("codegen", "ProtocolError"): 13,
}


HINTS = {  # by errno, to what the system says
    errno.ENOSPC: "; make room, then do the same again (a run goes on with --resume)",
    errno.EROFS: "; expected a folder that can be written",
}


def exit_code(error: BaseException) -> int | None:
    """Return the exit code of an error that is the user's to mend, or None if it is a bug."""
    if isinstance(error, TierfedError):
        return error.exit_code
    for ancestor in type(error).__mro__:
        code = FOREIGN.get((ancestor.__module__.partition(".")[0], ancestor.__name__))
        if code is not None:
            return code
    return RunFileError.exit_code if isinstance(error, OSError) else None


def sentence(error: BaseException) -> str:
    """Return what to tell the user about an error that has an exit code."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        hint = HINTS.get(error.errno or 0, "")
        return shown(f"{error.filename}: {error.strerror}{hint}")
    return "\n".join(map(shown, str(error).split("\n"))) or type(error).__name__


def shown(text: str) -> str:
    """Return text from a file or a wire as it may stand in a sentence: what a terminal would obey is written out."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError say which file it is about: that of a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
