# SPDX-License-Identifier: Apache-2.0
"""What training buys: distillation and pruning on the zoo's checkpoints, ``python -m benchmarks.training.<name>``.

A workstation tool, run from a checkout: unlike most of ``benchmarks`` it needs torch, and the networks and data of
``tests/zoo``. Rows are trained with several seeds, kept as soon as they are done, and compared seed by seed.
"""
