"""What the site is made of beside docs/: the C reference, and pages that live elsewhere in the repository.

docs/ is written to be read in the repository as well, so its links to files outside docs/ are right there. Here they are
turned into links to the same file's page, or into plain text where it has none.
"""

import logging
import posixpath
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import c_reference  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
LOG = logging.getLogger("mkdocs.hooks.site")

# Files of the repository that are pages of the site, and where.
ELSEWHERE = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "README.md": "index.md",
    "examples/grootv/README.md": "project/grootv.md",
    "examples/grootl/README.md": "project/grootl.md",
    "examples/c/README.md": "project/c.md",
    "examples/cpp/README.md": "project/cpp.md",
    "tests/cuda_emulation/README.md": "project/cuda-emulation.md",
    "cpp/include/treescan/treescan.h": "reference/c.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config):
    config.nav = without_missing(config.nav)
    return config


def without_missing(nav):
    """The navigation without the CUDA page as long as there is none."""
    kept = []
    for entry in nav:
        ((title, target),) = entry.items()
        if target == "cuda.md" and not (ROOT / "docs/cuda.md").exists():
            LOG.info("docs/cuda.md doesn't exist yet: left out")
        else:
            kept.append({title: without_missing(target) if isinstance(target, list) else target})
    return kept


def on_files(files, config):
    header = (ROOT / "cpp/include/treescan/treescan.h").read_text()
    files.append(File.generated(config, "reference/c.md", content=c_reference.page(header)))
    for source, page in ELSEWHERE.items():
        if page not in ("index.md", "reference/c.md"):
            files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown, page, **_):
    sources = {site: source for source, site in ELSEWHERE.items() if source.endswith(".md") and source != "README.md"}
    place = page.file.src_uri
    source = sources.get(place, f"docs/{place}")
    return outside_code(markdown, lambda text: LINK.sub(lambda link: redirected(link, source, place), text))


def outside_code(markdown, change):
    """Markdown with everything changed but fenced blocks."""
    parts = re.split(r"(^ *```.*?^ *```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


def redirected(link, source, place):
    """A link of the repository's file `source`, as it must be on the page `place`."""
    image, text, target = link.groups()
    path, hash_mark, anchor = target.partition("#")
    if "://" in target or target.startswith("mailto:") or not path:
        return link.group()
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if not (ROOT / wanted).exists():
        if wanted == "docs/cuda.md":  # as in the navigation
            return text
        if not wanted.startswith("docs/"):  # else it is for mkdocs to say
            LOG.warning("%s links to %s, which doesn't exist", source, target)
        return link.group()
    here = ELSEWHERE.get(wanted) or (wanted[len("docs/") :] if wanted.startswith("docs/") else None)
    if here is None:
        return text if wanted in text or "`" in text else f"{text} (`{wanted}`)"
    return f"{image}[{text}]({posixpath.relpath(here, posixpath.dirname(place) or '.')}{hash_mark}{anchor})"
