# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML page that asks for nothing from elsewhere: tables, and pictures drawn inline as SVG."""

from compress.report_page.comparison import comparison_page
from compress.report_page.document import page

__all__ = ["comparison_page", "page"]
