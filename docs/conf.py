"""The settings of the site; `python -m sphinx -W --keep-going -c docs . site/html` builds it.

The pages are Markdown files and notebooks of the repository, where links between them work as they
stand. `-D nb_execution_mode=off` shows the notebooks with the outputs that are saved in them.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ["PYTHONPATH"] = str(HERE.parent)  # for notebooks, and for all that imports gradtx

# JAX is never imported here, because Sphinx forks, and a process with JAX's threads must not.
command = [sys.executable, "-c", "import gradtx; print(gradtx.__version__)"]

project = "gradtx"
version = release = subprocess.check_output(command, text=True).strip()
root_doc = "docs/index"
extensions = ["myst_nb", "sphinx_design", "extension"]
include_patterns = ["*.md", "docs/**", "notebooks/*.ipynb"]
exclude_patterns = [
    "site",
    ".*",
    "tests",
    "gradtx",
    "benchmarks",
    "examples",
    "build",
]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_code_prompt_show = "Show the solution"  # of cells with the tag "hide-cell"
nb_code_prompt_hide = "Hide the solution"
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"gradtx {version}"
html_static_path = ["static"]
templates_path = ["templates"]
html_css_files = ["site.css"]
html_js_files = ["tables.js", "versions.js"]
html_additional_pages = {"index": "forward.html"}
html_copy_source = False
html_show_copyright = False
html_sidebars = {
    "**": [
        *("sidebar/brand.html", "versions.html", "sidebar/search.html"),
        *("sidebar/scroll-start.html", "sidebar/navigation.html", "sidebar/scroll-end.html"),
    ]
}
