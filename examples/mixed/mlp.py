"""What the small boards train: a few features of each 4×4 patch, then a hidden layer; 1,734 parameters."""

import keras


def build() -> keras.Model:
    """Return the untrained model: 28×28×1 images in [0, 1] to ten class probabilities."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(4, 4, strides=4, name="patches", kernel_initializer="he_normal"),
            layers.LeakyReLU(negative_slope=0.1, name="act1"),
            layers.Flatten(name="flatten"),
            layers.Dense(8, name="hidden", kernel_initializer="he_normal"),
            layers.LeakyReLU(negative_slope=0.1, name="act2"),
            layers.Dense(10, name="logits"),
            layers.Softmax(name="probabilities"),
        ],
        name="mlp",
    )
