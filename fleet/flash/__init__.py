# SPDX-License-Identifier: Apache-2.0
"""From a bare card to a device in the fleet; see ``docs/flashing.md``."""
