# SPDX-License-Identifier: Apache-2.0
"""A board's latency predictor: learned from whole models that were timed there, with intervals, for ordering only."""
