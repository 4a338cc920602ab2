# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0: integers without labels."""
