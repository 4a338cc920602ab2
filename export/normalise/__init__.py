# SPDX-License-Identifier: Apache-2.0
"""Make any TFLite file say what it is, and run right on old runtimes."""
