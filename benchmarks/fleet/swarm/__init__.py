# SPDX-License-Identifier: Apache-2.0
"""Thousands of simulated devices in one process that speak the real protocol to a real server and broker."""
