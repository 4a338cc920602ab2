# SPDX-License-Identifier: Apache-2.0
"""Other people's model files as bundles."""
