# SPDX-License-Identifier: Apache-2.0
"""Releases of the agent's own software: wheels, a manifest, a signature; see ``docs/software-update.md``."""
