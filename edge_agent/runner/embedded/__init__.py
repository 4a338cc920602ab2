# SPDX-License-Identifier: Apache-2.0
"""The agent inside an application: ``edge_agent.Model``."""

from edge_agent.runner.embedded.model import Model

__all__ = ["Model"]
