# SPDX-License-Identifier: Apache-2.0
"""The words that workstation, device and server share. Standard library only.

Import the module that holds the word: ``from edge_contract import topics``.
"""

PROTOCOL_VERSION = 1
"""Version of every message on the wire. A server and an agent understand N and N-1."""
