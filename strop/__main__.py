# SPDX-License-Identifier: Apache-2.0
"""``python -m strop`` is ``strop``."""

from strop.cli import main

main()
