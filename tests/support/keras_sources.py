# SPDX-License-Identifier: Apache-2.0
"""Write the Keras models of ``tests/compress/test_keras_source.py``: ``python keras_sources.py FOLDER``.

One process for all, because importing TensorFlow takes longer than everything else. Every weight and every running
statistic is random, so that a wrong axis or order shows.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers

from compress import keras_child


def mobile():
    """Inverted residuals with 'same' strides on odd and even sizes, ReLU6, depthwise and separable convolutions."""

    def conv(x, channels, size, strides=1, *, relu=True):
        x = layers.Conv2D(channels, size, strides, "same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        return layers.ReLU(6.0)(x) if relu else x

    given = keras.Input((30, 26, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(given)
    x = conv(x, 8, 3, 2)
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(conv(x, 16, 1))
    y = conv(layers.ReLU(6.0)(layers.BatchNormalization()(y)), 8, 1, relu=False)
    x = layers.Add()([x, y])
    x = layers.SeparableConv2D(12, 3, 2, "same", activation="relu")(x)
    x = layers.DepthwiseConv2D((3, 3), 2, "same")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(given, layers.Dense(5, "softmax", name="scores")(layers.Dropout(0.2)(x)))


def flattened():
    """A flatten whose order matters, through an activation and a normalisation, to a dense layer."""
    return keras.Sequential(
        [
            keras.Input((9, 7, 2)),
            layers.Conv2D(4, 3, activation="relu", dilation_rate=2),
            layers.MaxPooling2D(2, padding="same"),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Activation("tanh"),
            layers.Dense(6, "relu"),
            layers.Dense(3),
        ]
    )


def excited():
    """Squeeze and excitation with a reshape, a concatenation, zero padding, average pools, shared layers."""
    given = keras.Input((16, 16, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="twice")
    x = layers.LeakyReLU(0.1)(shared(shared(given)))
    s = layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D()(x))
    s = layers.Conv2D(4, 1, activation="hard_sigmoid")(layers.Conv2D(2, 1, activation="silu")(s))
    x = layers.Multiply()([x, s])
    a = layers.AveragePooling2D(3, 2, "same")(x)
    b = layers.MaxPooling2D(3, 2, "same")(x)
    c = layers.Conv2D(6, 3, 2, groups=2, activation="elu")(layers.ZeroPadding2D(((1, 0), (0, 1)))(x))
    d = layers.PReLU(shared_axes=[1, 2])(layers.Cropping2D(((4, 4), (3, 5)))(x))
    x = layers.Concatenate()([a, b, layers.ZeroPadding2D(((0, 0), (0, 0)))(c), d])
    x = layers.DepthwiseConv2D((3, 2), depth_multiplier=2)((x + 3.0) * 0.5 - 1.0)
    return keras.Model(given, layers.Dense(4)(layers.GlobalMaxPooling2D()(x)))


def nested():
    """A model in a model, a sequential one in it, and a flatten that is the output."""
    inner_input = keras.Input((8, 8, 3))
    inner = keras.Model(inner_input, keras.Sequential([layers.Conv2D(4, 3), layers.ReLU()])(inner_input), name="inner")
    given = keras.Input((8, 8, 3))
    x = layers.GaussianNoise(0.1)(inner(given))
    return keras.Model(given, layers.Flatten()(layers.Conv2D(2, 3)(x)))


def series():
    """Convolutions of a series: causal, 'same' with a stride, separable; pools; a dense layer on every moment."""
    return keras.Sequential(
        [
            keras.Input((50, 6)),
            layers.Conv1D(8, 5, padding="causal", dilation_rate=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv1D(8, 4, 3, "same"),
            layers.MaxPooling1D(2, padding="same"),
            layers.SeparableConv1D(10, 3, padding="same", activation="gelu"),
            layers.Dense(6, "relu"),
            layers.SpatialDropout1D(0.1),
            layers.AveragePooling1D(2),
            layers.Flatten(),
            layers.Dense(7, "softmax"),
        ]
    )


def upward():
    """A small U: transposed convolutions of odd and even kernels, up-sampling, a joined skip."""
    given = keras.Input((12, 12, 2))
    a = layers.Conv2D(4, 3, padding="same", activation="relu")(given)
    b = layers.Conv2D(6, 3, 2, "same", activation="relu")(a)
    u = layers.Conv2DTranspose(4, 3, 2, "same")(b)
    v = layers.UpSampling2D(2, interpolation="bilinear")(b)
    w = layers.Conv2DTranspose(3, 2, 2)(layers.Cropping2D(0)(b))
    x = layers.Concatenate()([a, u, v, layers.UpSampling2D(1)(w), layers.Conv2DTranspose(2, 4, 2, "same")(b)])
    return keras.Model(given, layers.Dense(3)(layers.Flatten()(layers.Conv2D(1, 3, 3)(x))))


def normalised():
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 4.0]),
            layers.RandomFlip(),
            layers.Conv2D(4, 3, padding="same"),
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.Reshape((4,)),
            layers.LayerNormalization(),
            layers.Dense(2),
        ]
    )


def recurrent():
    return keras.Sequential([keras.Input((7, 4)), layers.LSTM(8, name="memory"), layers.Dense(3)])


def two_inputs():
    first, second = keras.Input((4,)), keras.Input((4,))
    return keras.Model([first, second], layers.Dense(2)(layers.Add()([first, second])))


@keras.saving.register_keras_serializable("tests")
class Coded(keras.Model):
    """A model of Python code."""

    def __init__(self, **words):
        super().__init__(**words)
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def coded():
    model = Coded(name="coded")
    model(np.zeros((1, 3), np.float32))
    return model


def not_finite():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="broken")])
    model.layers[0].set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    return model


GOOD = (mobile, flattened, excited, nested, series, upward, normalised)
BAD = (recurrent, two_inputs, coded, not_finite)


def shaken(model, seed):
    """Give random values to every weight; variances stay positive."""
    draw = np.random.default_rng(seed)
    for variable in model.weights:
        noise = draw.normal(0, 0.4, variable.shape)
        variable.assign(np.abs(noise) + 0.5 if "variance" in variable.name else noise)
    return model


def main(folder):
    for seed, make in enumerate(GOOD):
        model = shaken(make(), seed)
        model.save(folder / f"{make.__name__}.keras")
        shape = [3, *(size or 20 for size in model.input_shape[1:])]
        x = np.random.default_rng(seed + 50).normal(0, 1, shape).astype(np.float32)
        np.savez(folder / f"{make.__name__}.npz", x=x, y=model(x, training=False).numpy())
        parts(folder, make.__name__)
    for make in BAD:
        make().save(folder / f"{make.__name__}.keras")
        parts(folder, make.__name__)
    flattened().save(folder / "old.h5")
    parts(folder, "old", ".h5")


def parts(folder, name, suffix=".keras"):
    """Do the child's work here, where TensorFlow is loaded already."""
    job = folder / name
    job.mkdir()
    (job / "job.json").write_text(json.dumps({"model": str(folder / f"{name}{suffix}"), "size": [20, 20]}))
    keras_child.main([str(job)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
