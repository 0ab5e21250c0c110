"""The Sphinx extension that makes gradtx's site: its reference, pictures, equations and checks."""

import os
import re
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

from extension import links, mathml
from extension.docstrings import breakable

LOGGER = logging.getLogger(__name__)
FOLDERS = {
    "examples": "docs/reference/examples.md",
    "benchmarks": "docs/reference/benchmarks.md",
    "gradtx/optimizers": "docs/reference/optimizers.md",
}
"""The pages that stand for folders to which pages link."""
ARGUMENTS = {"scale", "trace", "ema", "clip", "zero", "momentum", "nesterov", "race", "store"}
"""Names that mostly stand for arguments or fields where they are mentioned without `gradtx`."""


def write_reference(app: Sphinx) -> None:
    """Writes the pages of the reference before Sphinx looks for pages, in a process with JAX.

    Args:
      app: the application.
    """
    folder = Path(app.srcdir) / "docs" / "reference"
    places = [str(folder.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-m", "extension.pages", str(folder)]
    subprocess.run(command, check=True, env=environment)


def spread_notebooks(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Puts pages between the notebooks, so that all processes share the running of notebooks.

    Args:
      app: the application.
      env: not used.
      docnames: the names of the pages that will be read, which is changed.
    """
    slow = [name for name in docnames if name.startswith("notebooks/")]
    slow.sort(key=lambda name: Path(app.srcdir, f"{name}.ipynb").stat().st_size, reverse=True)
    quick = [name for name in docnames if name not in slow]
    between = len(quick) // max(1, len(slow)) + 1
    docnames[:] = [
        name
        for i in range(max(1, len(slow)))
        for name in (*slow[i : i + 1], *quick[i * between : (i + 1) * between])
    ]


def link_folders(app: Sphinx, name: str, source: list[str]) -> None:
    """Replaces links to folders of programs by links to the pages that show them.

    Args:
      app: the application.
      name: the page's name.
      source: the page's text, as the one element of a list.
    """
    for folder, page in FOLDERS.items():
        source[0] = re.sub(rf"\]\((?:\.\./)?{folder}/?\)", f"](/{page})", source[0])


def break_names(app: Sphinx, page: str, template: str, context: dict, tree: object) -> None:
    """Lets long names in a page's title break between their words, as phones need.

    Args:
      app: the application.
      page: not used.
      template: not used.
      context: what the page is made of; its body is changed.
      tree: not used.
    """
    if "body" in context:
        context["body"] = breakable(context["body"])


class LinkNames(SphinxPostTransform):
    """Makes links of the names of gradtx that stand as code in a page."""

    default_priority = 200

    def run(self, **kwargs: object) -> None:
        """Replaces the names in the page.

        Args:
          **kwargs: not used.
        """
        for node in list(self.document.findall(nodes.literal)):
            found = re.fullmatch(r"(gradtx\.)?(\w+(?:\.\w+)?)(?:\(.*\))?", node.astext(), re.DOTALL)
            if not found or isinstance(node.parent, (nodes.reference, nodes.title)):
                continue
            full, name = found.groups()
            page = f"docs/reference/gradtx.{name}"
            unclear = name in ARGUMENTS and not full
            if page not in self.env.found_docs or unclear or page == self.env.docname:
                continue
            uri = self.app.builder.get_relative_uri(self.env.docname, page)
            link = nodes.reference("", "", internal=True, refuri=uri)
            node.replace_self(link)
            link += node


def check(app: Sphinx, exception: Exception | None) -> None:
    """Warns of links that lead nowhere in the built site.

    Args:
      app: the application.
      exception: the reason why the build failed, or `None`.
    """
    if exception is None and app.builder.format == "html":
        for fault in links.faults(Path(app.outdir)):
            LOGGER.warning(fault)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers all of it.

    Args:
      app: the application.
    """
    mathml.setup(app)
    app.connect("builder-inited", write_reference)
    app.connect("env-before-read-docs", spread_notebooks)
    app.connect("source-read", link_folders)
    app.connect("html-page-context", break_names)
    app.connect("build-finished", check)
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
