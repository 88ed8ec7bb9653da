"""Read the published results of every bundle and write the pages that show how to repeat them."""

from .pages import card, page
from .results import BUNDLES, ROOT, Results, Row, Table, read_results

__all__ = ["BUNDLES", "ROOT", "Results", "Row", "Table", "card", "page", "read_results"]
