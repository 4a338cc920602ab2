# SPDX-License-Identifier: Apache-2.0
"""What the server's SQL runs on: the one name of a connection's type, whatever database stands behind it."""

import sqlite3

__all__ = ["Connection", "Row"]

Connection = sqlite3.Connection
Row = sqlite3.Row
