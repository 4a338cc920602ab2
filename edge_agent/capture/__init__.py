# SPDX-License-Identifier: Apache-2.0
"""Opt-in capture: a signed, bounded campaign keeps the inputs asked for, seals them, sends them, and forgets them."""
