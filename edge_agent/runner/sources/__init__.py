# SPDX-License-Identifier: Apache-2.0
"""Where inputs come from. A person declares sources in agent.toml; the server may only choose among them."""

from edge_agent.runner.sources.base import BACKLOG_S, Pace, Pushed, Source, Taken
from edge_agent.runner.sources.opening import KINDS, open_source
from edge_agent.runner.sources.replay import Replay, ReplaySpec

__all__ = ["BACKLOG_S", "KINDS", "Pace", "Pushed", "Replay", "ReplaySpec", "Source", "Taken", "open_source"]
