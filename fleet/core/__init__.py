# SPDX-License-Identifier: Apache-2.0
"""The fleet server's decisions: values in, values out. No clock, socket, file or random source."""
