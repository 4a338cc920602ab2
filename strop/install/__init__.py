# SPDX-License-Identifier: Apache-2.0
"""``strop agent install``: the first boot of a card, brought to a board that runs already."""
