# SPDX-License-Identifier: Apache-2.0
"""Do the intervals hold what they say, and the verdicts what they decide? Simulated launches whose truth is known."""
