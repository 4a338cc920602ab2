# SPDX-License-Identifier: Apache-2.0
"""The rim of the agent: network, disk, clock, helper processes."""
