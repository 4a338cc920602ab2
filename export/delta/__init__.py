# SPDX-License-Identifier: Apache-2.0
"""Make small updates: two model files are compared tensor by tensor, and only what differs is sent."""
