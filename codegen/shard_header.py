"""A shard as a C header, for boards that keep their samples in flash (firmware/ports/arduino)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

HEADER = """\
/* {samples} samples, compiled in. Generated: do not edit. The includer defines SHARD_ROW(label, bytes...) and gets the
 * rows; without it the sizes. */
#ifndef SHARD_ROW
#define SHARD_SAMPLES {samples}
#define SHARD_FEATURES {features}
#define SHARD_CLASSES {classes}
#else
{rows}
#endif
"""


def shard_header(samples: np.ndarray, labels: np.ndarray, classes: int) -> str:
    """Return shard.h. samples: u8 [count, features], or images of that many pixels; labels: [count] below `classes`."""
    flat = samples.reshape(len(samples), -1)
    rows = (
        f"SHARD_ROW({label}, {','.join(map(str, sample))})"
        for label, sample in zip(labels.tolist(), flat.tolist(), strict=True)
    )
    return HEADER.format(samples=len(flat), features=flat.shape[1], classes=classes, rows="\n".join(rows))
