# SPDX-License-Identifier: Apache-2.0
"""The project's own speed: what ``make bench`` measures, keeps and compares (``benchmarks.own_speed``)."""

__all__: list[str] = []
