# SPDX-License-Identifier: Apache-2.0
"""The first boot of a board: from a card's ``strop/`` folder to an agent that answers, and then enrols.

It runs on Debian's bare Python before anything is installed, so it is the standard library alone; see
``docs/first-boot.md``.
"""
