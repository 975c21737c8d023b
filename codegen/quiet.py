"""Import Keras without TensorFlow's greeting, which no setting silences and which would garble a live table."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

GREETING = re.compile(rb"WARNING: All log messages before absl|[IWE]0000 |To enable the following instructions")

_lock = threading.Lock()


def import_keras() -> None:
    """Import Keras and TensorFlow, unless that is done; `import keras` afterwards takes no time. For any thread."""
    with _lock:
        if "keras" in sys.modules and "tensorflow" in sys.modules:
            return
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with _without_greeting():
            import keras  # noqa: F401
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every model that is compiled


@contextmanager
def silent() -> Iterator[None]:
    """Drop what is written to descriptor 2 meanwhile: TFLite's converter talks to itself there. Errors are raised."""
    sys.stderr.flush()
    held = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(held, 2)
        os.close(held)


@contextmanager
def _without_greeting() -> Iterator[None]:
    """Hold back what C++ writes to descriptor 2, then pass on all but the greeting; Python's stderr goes through."""
    original = sys.stderr
    try:
        descriptor = os.dup(2)
    except OSError:  # there is no stderr to protect
        yield
        return
    with tempfile.TemporaryFile() as held:
        if original is not None and _writes_to(original, 2):
            # Never closed: whoever took hold of it meanwhile may still write to it.
            sys.stderr = os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", buffering=1)
        through = sys.stderr
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(descriptor, 2)
            if sys.stderr is through:
                sys.stderr = original
            held.seek(0)
            for line in held:
                if not GREETING.match(line):
                    os.write(2, line)


def _writes_to(stream: object, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, OSError, ValueError):
        return False
