"""The registry: every comparison, in the order of the table."""

from . import photos, scans, settings, trees

CASES = (*scans.CASES, *trees.CASES, *settings.CASES, *photos.CASES)
