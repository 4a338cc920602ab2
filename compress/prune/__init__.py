# SPDX-License-Identifier: Apache-2.0
"""Structured pruning: whole channels are removed, and everything that depends on them."""
