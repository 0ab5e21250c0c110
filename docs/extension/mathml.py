"""Equations as MathML, which browsers display without fonts or programs from elsewhere."""

import html

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

LOGGER = logging.getLogger(__name__)


def _converted(node: nodes.math | nodes.math_block, display: str) -> str:
    equation = node.astext().replace("{aligned}", "{align*}")  # latex2mathml has only the latter
    try:
        return convert(equation, display=display)
    except Exception as error:  # latex2mathml has no class for all of its errors
        LOGGER.warning("%s in the equation %s", type(error).__name__, node.astext(), location=node)
        return html.escape(node.astext())


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_converted(node, "inline"))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_converted(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Registers the renderer `mathml`.

    Args:
      app: the application.
    """
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
