"""What an export writes besides Keras, made and run: full-integer TFLite, and the inference header on this machine."""

from __future__ import annotations

import ctypes
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codegen.quiet import import_keras, silent
from coordinator.compiler import compiled

if TYPE_CHECKING:
    import keras

Array = np.ndarray[Any, np.dtype[Any]]

RUN = """
#if MODEL_FIXED
typedef int16_t number;
#else
typedef float number;
#endif
void run_all(const uint8_t *samples, uint32_t count, float *logits);
void run_all(const uint8_t *samples, uint32_t count, float *logits)
{
    for (; count > 0; count--, samples += MODEL_FEATURES, logits += MODEL_CLASSES) {
        const number *made = model_logits(samples);
        for (uint16_t i = 0; i < MODEL_CLASSES; i++) {
            logits[i] = (float)made[i];
        }
    }
}
"""


def tflite_model(model: keras.Model, images: Array) -> bytes:
    """Return the model with 8-bit weights and activations, int8 in and out, for one sample at a time; the ranges are
    those of `images`, as the model takes them."""
    import_keras()
    import tensorflow as tf

    spec = tf.TensorSpec((1, *images.shape[1:]), tf.float32)
    with warnings.catch_warnings(), silent():
        warnings.simplefilter("ignore")
        traced = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(spec)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return bytes(converter.convert())


def tflite_answers(content: bytes, images: Array) -> tuple[Array, str]:
    """Return what a model of `tflite_model` answers [n, classes], float32, and in words what it takes and gives."""
    import_keras()
    import tensorflow as tf

    with warnings.catch_warnings(), silent():
        warnings.simplefilter("ignore")  # Interpreter announces that it will move
        interpreter = tf.lite.Interpreter(model_content=content)
        interpreter.allocate_tensors()
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = takes["quantization"]
    held = np.clip(np.rint(images / np.float32(scale)) + zero, -128, 127).astype(np.int8)
    answers = []
    for image in held:
        interpreter.set_tensor(takes["index"], image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(gives["index"]).ravel())
    out_scale, out_zero = gives["quantization"]
    note = f"takes int8, value / {scale:.6g} {zero:+d}; gives int8 q, worth (q {-out_zero:+d}) × {out_scale:.6g}"
    return (np.array(answers).astype(np.float32) - out_zero) * np.float32(out_scale), note


def header_answers(header: Path, samples: Array) -> Array:
    """Return an inference header's logits [n, classes] of u8 samples, in its own unit. Raises CompilerError."""
    classes = next(int(line.split()[2]) for line in header.read_text().splitlines() if "#define MODEL_CLASSES" in line)
    with tempfile.TemporaryDirectory(prefix="tierfed-") as folder:
        source = Path(folder) / "header.c"
        source.write_text(header.read_text() + RUN)
        compiled("the header", ["-O2", "-shared", source], source.with_suffix(".so"))
        library = ctypes.CDLL(str(source.with_suffix(".so")))
    x = np.ascontiguousarray(samples, np.uint8).reshape(len(samples), -1)
    made = np.empty((len(x), classes), np.float32)
    at = (ctypes.c_void_p(array.ctypes.data) for array in (x, made))
    library.run_all(next(at), ctypes.c_uint32(len(x)), next(at))
    return made
