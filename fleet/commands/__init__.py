# SPDX-License-Identifier: Apache-2.0
"""The verbs of ``strop fleet`` that ask a running server, one file for each subject."""
