# SPDX-License-Identifier: Apache-2.0
"""Small updates: a patch that turns a file which the device holds into the one that it was told to run."""
