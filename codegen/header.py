"""The C headers: of a plan, every array and one training step in straight lines; of a sub-model, inference alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codegen.header_f32 import FloatWriter
from codegen.header_fixed import FixedWriter
from codegen.header_inference import InferenceWriter
from codegen.planner import Plan, Training
from codegen.tiers import SubModel

if TYPE_CHECKING:
    import numpy as np

TEMPLATES = Path(__file__).with_name("templates")


def model_header(plan: Plan, weights: Sequence[np.ndarray]) -> str:
    """Return model.h of the plan. Of the global `weights` only the frozen ones are used."""
    writer = FixedWriter(plan, weights) if plan.kernel == "fixed" else FloatWriter(plan, weights)
    return _rendered(writer.template, writer.context())


def inference_header(
    sub_model: SubModel,
    weights: Sequence[np.ndarray],
    kernel: str,
    training: Training,
    peaks: Sequence[float] | None = None,
) -> str:
    """Return a header that infers with the sub-model's slice of the global `weights`, and needs no other file.

    `kernel`: f32 or fixed. `peaks`: of each layer, the largest magnitude expected of its output, from which fixed point
    takes where its shifts begin (None: at 0, which costs time and accuracy). Raises ValueError if fixed point cannot
    hold a weight.
    """
    writer = InferenceWriter(sub_model, weights, kernel, training, peaks)
    return _rendered(f"inference_{kernel}.h.j2", writer.context())


def _rendered(template: str, context: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(context)
