# SPDX-License-Identifier: Apache-2.0
"""Device clients that stand idle at a broker, each a program of its own: ``python FILE PORT`` says ``ready`` and waits.

All do the least that such a client is for: stay connected, listen for work, say every minute that they are there.
They run in environments without Strop, so they import nothing of it.
"""
