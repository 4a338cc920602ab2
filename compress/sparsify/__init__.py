# SPDX-License-Identifier: Apache-2.0
"""Masks: single weights become zero and stay zero. The packed download shrinks; no runtime of ours computes faster."""
