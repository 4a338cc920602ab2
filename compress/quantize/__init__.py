# SPDX-License-Identifier: Apache-2.0
"""Post-training int8 quantization: every integer decided once, as a ``QuantizationPlan`` (docs/quantization.md)."""
