# SPDX-License-Identifier: Apache-2.0
"""What the drift detection promises, measured: ``python -m benchmarks.drift.NAME [--json] [--quick]``."""
