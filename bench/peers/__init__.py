"""What people could use instead. A module here gives each peer's calls; `available` says whether it is installed."""

import importlib.util


def available(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def absence(module: str) -> str:
    """The line that stands where a peer is missing."""
    return f"{module} isn't installed here: `pip install -e '.[bench]'` brings it where it exists"
