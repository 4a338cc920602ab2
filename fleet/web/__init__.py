# SPDX-License-Identifier: Apache-2.0
"""What the fleet server speaks over HTTP: to operators, to devices, and to devices that want to become ones."""
