# SPDX-License-Identifier: Apache-2.0
"""Measure on the computer that matters, and compare honestly. Import the module that holds the tool."""
