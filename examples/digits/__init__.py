# SPDX-License-Identifier: Apache-2.0
"""The quick start: digits, from a teacher to a fleet."""
