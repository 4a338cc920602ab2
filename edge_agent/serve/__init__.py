# SPDX-License-Identifier: Apache-2.0
"""The local endpoint: programs in any language ask the model on this device, over loopback or a Unix socket.

It lives where the model lives. In the runner process it is a source of kind ``http``: requests are then the inputs that
windows, drift and probation are about, a new model takes over between two of them, and no second copy of the model is
in memory. ``strop agent serve`` is the same endpoint over ``edge_agent.Model``, for a bundle without an agent.
"""

from edge_agent.serve.desk import BusyError, Desk, Direct, Queued
from edge_agent.serve.server import Limits, Server

__all__ = ["BusyError", "Desk", "Direct", "Limits", "Queued", "Server"]
