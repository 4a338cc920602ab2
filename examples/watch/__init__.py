# SPDX-License-Identifier: Apache-2.0
"""Exercises by smartwatch: a series, people kept apart."""
