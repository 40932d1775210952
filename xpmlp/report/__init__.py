"""A training as one page of HTML: what it learnt, where it fails, and how it came about.

The page is whole in itself: pictures and style are inside, nothing is loaded and no script runs. It
reads on a phone, in dark mode, printed and without colours. Whatever names the data hold are shown
as text.
"""

from .findings import Findings, Scored
from .page import report_page
from .several import comparison_page

__all__ = ["Findings", "Scored", "comparison_page", "report_page"]
