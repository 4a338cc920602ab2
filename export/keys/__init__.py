# SPDX-License-Identifier: Apache-2.0
"""Offline keys and the signatures that devices trust."""
