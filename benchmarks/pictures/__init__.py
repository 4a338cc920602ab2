# SPDX-License-Identifier: Apache-2.0
"""Pictures of results, for a page in light and dark and as PNG. Workstation only: needs matplotlib."""
