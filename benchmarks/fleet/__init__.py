# SPDX-License-Identifier: Apache-2.0
"""The fleet server measured: ingest, pages, gates."""
