# SPDX-License-Identifier: Apache-2.0
"""A camera program that embeds the agent, in twenty lines."""
