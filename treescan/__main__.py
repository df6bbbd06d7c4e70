"""`python -m treescan`."""

import sys

from .cli import main

sys.exit(main())
