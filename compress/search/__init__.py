# SPDX-License-Identifier: Apache-2.0
"""Search over the choices of a recipe: many trials, several objectives, one budget, the Pareto front."""
