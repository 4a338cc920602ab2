# SPDX-License-Identifier: Apache-2.0
"""Build a bundle: artefacts, golden answers, profiles, lineage."""
