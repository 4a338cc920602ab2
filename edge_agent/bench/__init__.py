# SPDX-License-Identifier: Apache-2.0
"""Opt-in benchmarks: a signed, bounded order measures a model on this device, beside the loop, and leaves nothing."""
