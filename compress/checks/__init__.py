# SPDX-License-Identifier: Apache-2.0
"""Checks before deployment: what a recipe's ``[[check]]`` tables ask of the model that ships, and of its data.

``asked`` reads the tables; ``subject`` holds what is examined; each kind has its file and returns a ``CheckResult``;
``gate`` refuses a bundle whose checks failed, unless each is waived by name. Every kind is in ``docs/checks.md``.
"""
