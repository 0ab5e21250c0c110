"""Checks of a built site: links lead somewhere, and nothing is loaded from elsewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LINK = re.compile(r'<(\w+)\s[^>]*?\b(?:href|src)="([^"]*)"[^>]*>')
_ANCHOR = re.compile(r'\s(?:id|name)="([^"]+)"')
_LOADED = ("script", "img", "link", "iframe", "source", "video", "audio", "embed")


def faults(site: Path) -> Iterator[str]:
    """Yields a message for each link that leads nowhere, and each file loaded from elsewhere.

    Args:
      site: the folder of the site.
    """
    pages = {file.resolve(): file.read_text() for file in sorted(site.rglob("*.html"))}
    anchors = {file: set(_ANCHOR.findall(text)) for file, text in pages.items()}
    for file, text in pages.items():
        place = file.relative_to(site.resolve())
        for tag, link in sorted({(m[1], m[2]) for m in _LINK.finditer(text)}):
            parts = urlsplit(link.replace("&amp;", "&"))
            if parts.scheme == "data" or parts.scheme == "mailto":
                continue
            if parts.scheme or parts.netloc:
                if tag in _LOADED:
                    yield f"{place}: loads {link} from elsewhere"
                continue
            there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not there.exists():
                yield f"{place}: {link} leads nowhere"
            elif parts.fragment and unquote(parts.fragment) not in anchors.get(there, ()):
                yield f"{place}: {link} has no such anchor"
    for file in sorted(site.rglob("*.css")):
        for link in re.findall(
            r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", file.read_text()
        ):
            yield f"{file.relative_to(site)}: loads {link} from elsewhere"
