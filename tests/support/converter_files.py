# SPDX-License-Identifier: Apache-2.0
"""TFLite files as TensorFlow's converter writes them: ``python -m tests.support.converter_files FOLDER``.

In a process of its own, because TensorFlow warns, threads and stays in memory. ``make`` runs it and returns the bytes.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = ("conv_int8", "conv_dynamic", "conv_float", "swish_int8", "dense_free_batch")


def make(folder):
    """Return name → bytes; the test is skipped where TensorFlow is not installed."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow is missing: pip install 'strop[tensorflow]'")
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.support.converter_files", str(folder)]
    root = Path(__file__).resolve().parents[2]
    subprocess.run(command, check=True, capture_output=True, timeout=280, cwd=root, env={**os.environ, **quiet})
    return {name: (Path(folder) / f"{name}.tflite").read_bytes() for name in NAMES}


def _convert(model, *, ranges=None, dynamic=False):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if ranges is not None or dynamic:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if ranges is not None:
        converter.representative_dataset = lambda: ([item] for item in ranges)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def _conv(activation):
    """A Keras network with an explicit padding before a stride of 2, a depthwise convolution and a dense layer."""
    import tensorflow as tf

    k = tf.keras.layers
    return tf.keras.Sequential([
        k.Input((16, 16, 3), batch_size=1),
        k.ZeroPadding2D(((0, 1), (0, 1))),
        k.Conv2D(48, 3, strides=2, padding="valid"),
        k.Activation(activation),
        k.DepthwiseConv2D(3, padding="same"),
        k.Activation(activation),
        k.Conv2D(48, 1),
        k.Activation(activation),
        k.GlobalAveragePooling2D(),
        k.Dense(40),
    ])  # fmt: skip


def main(folder):
    import numpy as np
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).standard_normal((32, 1, 16, 16, 3)).astype(np.float32)
    relu, swish = _conv("relu6"), _conv("hard_swish")
    dense = tf.keras.Sequential([tf.keras.layers.Input((40,)), tf.keras.layers.Dense(12)])
    rows = np.random.default_rng(1).standard_normal((32, 1, 40)).astype(np.float32)
    files = {
        "conv_float": _convert(relu),
        "conv_int8": _convert(relu, ranges=images),
        "conv_dynamic": _convert(relu, dynamic=True),
        "swish_int8": _convert(swish, ranges=images),
        "dense_free_batch": _convert(dense, ranges=rows),
    }
    for name, data in files.items():
        (Path(folder) / f"{name}.tflite").write_bytes(data)


if __name__ == "__main__":
    main(sys.argv[1])
