"""`pio run`, the one place that runs it: what is built comes from platformio.ini and codegen/prebuild.py."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from boards import PROJECT_ROOT
from coordinator.errors import ToolchainError

OUTPUT_LINES = 30  # of a failed build that are shown
PROCESSING = re.compile(r"Processing (?:native_)?(\S+)")  # what PlatformIO says when it begins with an environment
UNREACHED = re.compile(r"^(HTTPClientError|InternetConnectionError):", re.MULTILINE)
WORKSPACE = PROJECT_ROOT / ".pio"

Watch = Callable[[str], None]


@contextmanager
def workspace(folder: Path | None = None, own: str | None = None) -> Iterator[Path]:
    """Have the folder that PlatformIO builds in (None: the project's .pio) to oneself: two builds in one place break
    each other. Images with a model of their `own` have a corner, in which no more than what differs is compiled, too.
    """
    place = folder or WORKSPACE
    if own:
        place = place / "own" / own
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield place


def run(
    what: str,
    environments: Sequence[str],
    place: Path,
    variables: Mapping[str, str],
    arguments: Sequence[str] = (),
    watch: Watch | None = None,
) -> None:
    """Run PlatformIO on these environments in the workspace `place`, which the caller has to itself.

    `variables` are what codegen/prebuild.py reads; `watch` hears each board whose turn it is. Raises ToolchainError:
    `what` ("the twins could not be built"), and what the build said.
    """
    command = [sys.executable, "-m", "platformio", "run", "--project-dir", str(PROJECT_ROOT)]
    for environment in environments:
        command += ["--environment", environment]
    command += arguments
    env = {**os.environ, "PLATFORMIO_WORKSPACE_DIR": str(place), **variables}
    said: deque[str] = deque(maxlen=OUTPUT_LINES)
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if watch and (turn := PROCESSING.match(line)):
                watch(turn[1])
    if process.returncode:
        words = "".join(said).strip()
        raise ToolchainError(f"{what}; `{' '.join(command[2:])}` said:\n{words}{hint(words)}")


def hint(words: str) -> str:
    """Return what to add to the last words of PlatformIO, if they say less than one needs to know."""
    if not UNREACHED.search(words):
        return ""
    return (
        "\nPlatformIO did not reach its registry, where this board's tools are; expected it to answer, or them to "
        "be installed already (docs/boards.md, Without PlatformIO's registry)"
    )


def seed() -> None:
    """Make PlatformIO ready where its registry does not answer. Raises ToolchainError."""
    from boards.seed import SeedError
    from boards.seed import seed as fill

    try:
        fill()
    except SeedError as error:
        raise ToolchainError(str(error)) from error
