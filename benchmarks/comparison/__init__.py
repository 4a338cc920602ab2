# SPDX-License-Identifier: Apache-2.0
"""Compare two models by launches laid between each other, or two stored results of one board."""
