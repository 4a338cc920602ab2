# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST: a trained MobileNetV2 made small."""
