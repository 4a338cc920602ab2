# SPDX-License-Identifier: Apache-2.0
"""The runner: numpy and one inference runtime, embedded in an application or in a process of its own."""
