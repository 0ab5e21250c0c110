"""The order of links in a chain: after some of them, nothing may change the updates.

These are links whose updates are those of the parameters, such as `kahan`, which computes what the
parameters lack after just this update, and averages of the next parameters.
"""

from collections.abc import Iterator, Mapping

from gradtx.engine.links import Link
from gradtx.engine.pipeline import Pipeline, pipeline_of


def refuse_after_last(parts: Mapping[str, Pipeline], function: str) -> None:
    """Raises an error if a part of a chain follows one whose updates it must not change.

    Two links that both have masks may act on different leaves; they are allowed.

    Args:
      parts: the parts of the chain, by their names in the error.
      function: the name of the caller.

    Raises:
      ValueError: a part that must be last is followed by one that changes its updates.
    """
    finished: list[tuple[Link, str, str]] = []
    for where, pipeline in parts.items():
        changing = [x for x in pipeline.links if not _follows(x)]
        for link in changing:
            for last, name, before in finished:
                if not (last.masks and link.masks):
                    title = link.title or "a transformation"
                    raise ValueError(
                        f"{function}: {name} ({before}) must be last, but {title} ({where}) would "
                        f"change its updates; put {title} before or inside of {name}"
                    )
        finished += [(x, name, where) for x in pipeline.links for name in _last(x)]


def _last(link: Link) -> Iterator[str]:
    """Yields the names of the links that must be last: the link, or those inside of it."""
    if link.traits.get("last"):
        yield link.title
    elif not link.traits.get("follows"):
        yield from (name for x in _inside(link) for name in _last(x))


def _follows(link: Link) -> bool:
    """Returns whether a link, or all those that it wraps, may come after one that must be last."""
    if link.traits.get("follows") or link.traits.get("frozen"):
        return True
    inside = [*_inside(link)]
    return not link.traits.get("last") and bool(inside) and all(map(_follows, inside))


def _inside(link: Link) -> Iterator[Link]:
    for tx in link.traits.get("passes_to") or ():
        if hasattr(tx, "update"):  # not a function that returns a transformation
            yield from pipeline_of(tx).links
