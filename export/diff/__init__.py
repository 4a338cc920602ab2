# SPDX-License-Identifier: Apache-2.0
"""What differs between two bundles or two model files."""
