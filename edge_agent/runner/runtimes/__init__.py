# SPDX-License-Identifier: Apache-2.0
"""Inference runtimes behind one protocol; each is imported only when a model asks for it."""

from edge_agent.runner.runtimes.base import Session, open_session, runtime_version

__all__ = ["Session", "open_session", "runtime_version"]
