# SPDX-License-Identifier: Apache-2.0
"""Say what a model file holds, without running it."""
