# SPDX-License-Identifier: Apache-2.0
"""Will a target take this file, and if not, why not."""
