# SPDX-License-Identifier: Apache-2.0
"""Predict weights, activations and arena of a model file."""
