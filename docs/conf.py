"""Sphinx configuration: MyST pages, and an API reference drawn from the docstrings."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # documents this tree, installed or not

import xpmlp  # noqa: E402

project = "xpmlp"
author = "the xpmlp developers"
release = version = xpmlp.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "numpydoc",
]
exclude_patterns = ["_build", "examples"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "tasklist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
# Docstrings give shapes and units, which "Array" in a signature would only hide.
autodoc_typehints = "none"
numpydoc_show_class_members = False
autosummary_generate = False

html_theme = "furo"
html_title = f"xpmlp {version}"
html_show_copyright = False
