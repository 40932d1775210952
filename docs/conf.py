"""Sphinx configuration: MyST pages, and an API reference drawn from the docstrings."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # documents this tree, installed or not
sys.path.insert(0, str(Path(__file__).parent / "extensions"))

import xpmlp  # noqa: E402

project = "xpmlp"
author = "the xpmlp developers"
release = version = xpmlp.__version__

extensions = [
    "myst_nb",  # MyST pages and notebooks
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "numpydoc",
    "examples",
    "mathml",
    "pictures",
    "summaries",
]
exclude_patterns = ["_build", "examples", "pictures"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "tasklist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Array would be Any, which it is to the interpreter; the others are words that the parameters list.
_NAMES = ("Array", "HiddenActivation", "ActivationName", "InitializerName", "OptimizerName")
autodoc_type_aliases = {name: name for name in _NAMES}
python_maximum_signature_line_length = 76  # a parameter a line, where they do not fit into one
numpydoc_show_class_members = False

html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_static_path = ["static"]
html_css_files = ["narrow.css"]
html_theme = "furo"
html_title = f"xpmlp {version}"
html_show_copyright = False
