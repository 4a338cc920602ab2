# SPDX-License-Identifier: Apache-2.0
"""Write the Keras models of ``tests/export/test_keras.py``: ``python keras_models.py FOLDER``.

One process for all, because importing TensorFlow takes longer than everything else. The ``.tflite`` files are what the
converter gives for its traps, made with the functions that Strop's own child process uses, or without its precautions.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from export.keras import child, load

layers, keras = tf.keras.layers, tf.keras


def mobile_net(shape=(8, 8, 1)):
    """An inverted residual block with ReLU6, a strided depthwise convolution, global pooling, a dense head."""

    def conv(x, channels, size, strides=1, *, relu=True):
        x = layers.Conv2D(channels, size, strides, "same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.8)(x)
        return layers.ReLU(6.0)(x) if relu else x

    def depthwise(x, strides=1):
        x = layers.DepthwiseConv2D(3, strides, "same", use_bias=False)(x)
        return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.8)(x))

    given = keras.Input(shape)
    x = conv(given, 16, 3)
    x = layers.Add()([x, conv(depthwise(conv(x, 32, 1)), 16, 1, relu=False)])
    x = conv(depthwise(conv(x, 48, 1), 2), 32, 1, relu=False)
    x = layers.GlobalAveragePooling2D()(conv(x, 64, 1))
    return keras.Model(given, layers.Dense(10)(x))


def trained(x, y):
    net = mobile_net()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(0.01), loss)
    net.fit(x, y, 64, epochs=4, verbose=0)
    return net


def perceptron():
    given = keras.Input((16,))
    x = layers.Dense(24, "relu", bias_initializer="ones")(given)
    return keras.Model(given, layers.Dense(5)(x))


def recurrent():
    given = keras.Input((7, 4))
    return keras.Model(given, layers.Dense(3)(layers.LSTM(8)(given)))


def error_function():
    given = keras.Input((6,))
    return keras.Model(given, layers.Dense(2)(keras.ops.erf(layers.Dense(4, name="before")(given))))


def attention():
    given = keras.Input((6, 8))
    x = layers.LayerNormalization()(given + layers.MultiHeadAttention(2, 4)(given, given))
    return keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


class Doubling(tf.Module):
    """Doubles its input until it is large: a loop that depends on data, with a fixed size."""

    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32)])
    def run(self, x):
        while tf.reduce_sum(tf.abs(x)) < 50.0:
            x = 2.0 * x
        return tf.reshape(x, [1, 4])


class Greedy(tf.Module):
    """Needs two GiB for one input."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    def run(self, x):
        wide = tf.broadcast_to(tf.reduce_sum(x), [2**14, 2**15])
        return tf.reshape(tf.reduce_sum(tf.sort(wide), 0)[:4], [1, 4])


def raw(folder, path, samples, *, precision="int8", keep=True):
    """Return the converter's file as Strop's child gets it, or without the variables handed over by name."""
    loaded = load.load(tf, path)
    if not keep:
        loaded = load.Loaded(loaded.call, loaded.shape, loaded.kept[:1], loaded.layers)
    module, function = child._trace(tf, loaded, load.fixed(loaded.shape, list(samples.shape[1:])))
    saved = folder / f"saved-{path.stem}-{keep}"
    tf.saved_model.save(module, str(saved), signatures={"serving_default": function})
    return str(saved), child._tflite(tf, str(saved), samples, precision)


def per_channel(saved, samples):
    """What TensorFlow makes by default: one scale per row of fully-connected weights."""
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def words_of_the_converter(folder, model):
    """What it says of a model that it cannot convert."""
    model.save(folder / "refused.keras")
    try:
        raw(folder, folder / "refused.keras", np.zeros((1, 6)), precision="float32")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("the converter took it")


def main(folder):
    keras.utils.set_random_seed(0)
    digits = load_digits()
    x = (digits.images[..., None] / 16).astype(np.float32)
    net = trained(x[:1200], digits.target[:1200])
    net.save(folder / "net.keras")
    answers = net.predict(x[1200:], verbose=0)
    np.savez(folder / "digits.npz", calibration=x[:200], x=x[1200:], y=digits.target[1200:], answers=answers)
    perceptron().export(folder / "perceptron", verbose=False)
    samples = np.random.default_rng(0).standard_normal((100, 16), np.float32)
    np.savez(folder / "perceptron.npz", x=samples)
    for make in (recurrent, attention):
        make().save(folder / f"{make.__name__}.keras")
    for module in (Doubling(), Greedy()):
        name = type(module).__name__.lower()
        tf.saved_model.save(module, str(folder / name), signatures=module.run)
    (folder / "error_function.txt").write_text(words_of_the_converter(folder, error_function()))
    saved, _ = raw(folder, folder / "perceptron", samples)
    (folder / "per-channel.tflite").write_bytes(per_channel(saved, samples))
    for name, shape in (("doubling", (4,)), ("attention.keras", (6, 8))):
        data = np.random.default_rng(1).standard_normal((50, *shape), np.float32)
        (folder / f"{name.split('.')[0]}.tflite").write_bytes(raw(folder, folder / name, data)[1])
    _, data = raw(folder, folder / "recurrent.keras", np.zeros((1, 7, 4)), precision="float32", keep=False)
    (folder / "variables.tflite").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
