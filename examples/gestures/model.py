"""The gestures' global model: two strided convolutions over time, 3,139 parameters at full width.

Global max pooling asks whether something happened, not when: a hand starts late or early. It was chosen on the training
people alone, one of them left out at a time.
"""

import keras


def build() -> keras.Model:
    """Return the untrained global model: 64 readings of x, y and z in g to the three gestures' probabilities."""
    layers = keras.layers
    shape = {"strides": 2, "padding": "same", "kernel_initializer": "he_normal"}
    return keras.Sequential(
        [
            keras.Input((64, 3)),
            layers.Conv1D(16, 7, name="conv1", **shape),
            layers.LeakyReLU(negative_slope=0.1, name="act1"),
            layers.Conv1D(24, 7, name="conv2", **shape),
            layers.LeakyReLU(negative_slope=0.1, name="act2"),
            layers.GlobalMaxPooling1D(name="pool"),
            layers.Dense(3, name="logits"),
            layers.Softmax(name="probabilities"),
        ],
        name="gestures",
    )
