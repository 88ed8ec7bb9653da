"""Configure Sphinx: pages in Markdown, and the API reference from the docstrings of ``common``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "MONAI paper bundles"
author = "The contributors of monai-paper-bundles"
source_suffix = {".md": "markdown"}
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# The source is the root of the repository: links between pages, cards and files work here as they do on GitHub.
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md", "bundles/*/docs/README.md"]
exclude_patterns = ["docs/_build", "AGENTS.md"]

myst_enable_extensions = ["html_image"]
myst_heading_anchors = 4
suppress_warnings = ["toc.not_included"]  # the map of the pages is docs/index.md, which GitHub shows too
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True

html_theme = "furo"
html_title = project
