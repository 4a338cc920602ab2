# SPDX-License-Identifier: Apache-2.0
"""The command line: mounts every group, each imported only when it is called."""
