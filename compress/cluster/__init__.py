# SPDX-License-Identifier: Apache-2.0
"""Weight sharing: the weights of a layer take few values. The packed download shrinks; nothing computes faster."""
