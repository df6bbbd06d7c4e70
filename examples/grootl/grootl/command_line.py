"""What the package's commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Runs a command. What a user got wrong is said in one message, without a traceback, and makes the exit code 1."""
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
