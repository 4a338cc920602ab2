# SPDX-License-Identifier: Apache-2.0
"""Other people's quantizers on our checkpoints, beside ours: ``python -m benchmarks.peers.run``.

A workstation tool, run from a checkout: unlike the rest of ``benchmarks`` it needs torch, and the networks and data of
``tests/zoo``. Each peer lives in an environment of its own (``environments``), converts in a child process
(``child``, ``converters``), and is judged here by the same code (``sessions``, ``statistics``, ``leftover``).
"""
