# SPDX-License-Identifier: Apache-2.0
"""Run a model file in a runtime, here or in another interpreter."""
