# SPDX-License-Identifier: Apache-2.0
"""Updates of the agent's own software; see ``docs/software-update.md``."""
