# SPDX-License-Identifier: Apache-2.0
"""Keras and SavedModel through TensorFlow's own converter, in a process of its own."""
