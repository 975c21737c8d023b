"""The C header of a plan: every array and one training step, in straight lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from codegen.header_f32 import FloatWriter
from codegen.header_fixed import FixedWriter
from codegen.planner import Plan

if TYPE_CHECKING:
    import numpy as np

TEMPLATES = Path(__file__).with_name("templates")


def model_header(plan: Plan, weights: Sequence[np.ndarray]) -> str:
    """Return model.h of the plan. Of the global `weights` only the frozen ones are used."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    writer = FixedWriter(plan, weights) if plan.kernel == "fixed" else FloatWriter(plan, weights)
    return environment.get_template(writer.template).render(writer.context())
