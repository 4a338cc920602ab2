# SPDX-License-Identifier: Apache-2.0
"""Does every runtime compute what was evaluated."""
