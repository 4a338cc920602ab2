# SPDX-License-Identifier: Apache-2.0
"""Predict what the Edge TPU's compiler will map."""
