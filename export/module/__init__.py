# SPDX-License-Identifier: Apache-2.0
"""Any torch module as ONNX, in float or with int8 weights."""
