# SPDX-License-Identifier: Apache-2.0
"""The agent's decisions, without any input or output: ``agent.handle(state, event) -> (state, effects)``."""
