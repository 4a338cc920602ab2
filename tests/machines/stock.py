# SPDX-License-Identifier: Apache-2.0
"""A full-integer file as TensorFlow's converter writes it by default: ``python -m tests.machines.stock OUT.tflite``.

Two dense layers on 24 features. In a process of its own: TensorFlow warns, logs and keeps half a gigabyte.
"""

import os
import sys
from pathlib import Path

import numpy as np

__all__ = ["FEATURES", "samples", "write"]

FEATURES = 24


def samples(count: int, seed: int) -> np.ndarray:
    """Return inputs [count, 24], float32."""
    return np.random.default_rng(seed).normal(0, 1, (count, FEATURES)).astype(np.float32)


def write(path: Path) -> None:
    """Convert a network with random weights of unlike rows, and keep its float answers beside the file as .npy."""
    import tensorflow as tf

    tf.random.set_seed(3)
    layers = [tf.keras.layers.Input((FEATURES,)), tf.keras.layers.Dense(16, "relu"), tf.keras.layers.Dense(6)]
    model = tf.keras.Sequential(layers)
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel * np.geomspace(0.3, 3, kernel.shape[1]), bias])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in samples(100, 1))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    np.save(path.with_suffix(".npy"), model(samples(40, 2)).numpy())


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    write(Path(sys.argv[1]))
