# SPDX-License-Identifier: Apache-2.0
"""Clothes seen by another camera: a student that heals with its teacher's help and nobody's labels."""
