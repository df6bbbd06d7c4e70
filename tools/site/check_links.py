"""Checks the built site's links: `python tools/site/check_links.py build/site`.

Links within the site must lead to a file, and to an element of it where they name one. Links elsewhere are looked at for
their form only: nothing is fetched.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        self.links += [attributes[key] for key in ("href", "src") if key in attributes]


def problem(link, path, pages, root):
    """What is wrong with a link of the page at `path`, or None; and whether it stays within the site."""
    if not link:
        return "is empty", True
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        well_formed = parts.scheme == "https" and "." in parts.netloc and " " not in link
        return None if well_formed or parts.scheme in ("mailto", "data") else "isn't well formed", False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if parts.path.startswith("/"):
        return (None if path.name == "404.html" else "is absolute"), True
    if target.is_dir():
        target /= "index.html"
    if not target.is_file() or root not in target.parents:
        return "leads nowhere", True
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        return "names no element of that page", True
    return None, True


def main(root):
    root = root.resolve()
    pages = {path: Page(path) for path in sorted(root.rglob("*.html"))}
    counts, wrong = {True: 0, False: 0}, []
    for path, page in pages.items():
        for link in page.links:
            fault, within = problem(link, path, pages, root)
            counts[within] += 1
            if fault:
                wrong.append(f"{path.relative_to(root)}: {link!r} {fault}")
    print(
        "\n".join(
            wrong
            + [
                f"{len(pages)} pages, {counts[True]} links within the site, {counts[False]} elsewhere (their form "
                f"alone): {len(wrong)} wrong"
            ]
        )
    )
    return bool(wrong) or not pages


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
