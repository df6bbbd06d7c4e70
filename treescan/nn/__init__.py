"""Modules made of tree scans."""

from .tree_energy_loss import TreeEnergyLoss
from .tree_filter2d import TreeFilter2d
from .tree_scan2d import TreeScan2d
from .tree_ssm import TreeSSM, tree_scanning

__all__ = ["TreeEnergyLoss", "TreeFilter2d", "TreeSSM", "TreeScan2d", "tree_scanning"]
