"""GrootV: a vision backbone whose state space scans run along a tree that the image itself determines."""

from . import timm_models  # the registry needs the import
from .checkpoint import load_original
from .model import VARIANTS, GrootV, fixed_tree

__all__ = ["VARIANTS", "GrootV", "fixed_tree", "load_original", "timm_models"]
