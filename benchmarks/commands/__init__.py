# SPDX-License-Identifier: Apache-2.0
"""The verbs of ``strop bench``, one file each. Only these files import typer and rich."""
