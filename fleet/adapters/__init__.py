# SPDX-License-Identifier: Apache-2.0
"""Where the fleet server touches the world: database, blobs, broker, certificates."""
