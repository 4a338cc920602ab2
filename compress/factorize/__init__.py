# SPDX-License-Identifier: Apache-2.0
"""Low rank: one layer becomes two or three thinner ones with (nearly) the same answer."""
