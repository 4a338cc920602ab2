# SPDX-License-Identifier: Apache-2.0
"""The loop that closes by itself: a signal of the fleet, captured inputs, a new training, a bundle, a rollout."""
