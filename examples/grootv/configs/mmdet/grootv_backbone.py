"""GrootV as a backbone of mmdet, for those who have it. Not run here: mmcv doesn't build for this torch.

A configuration names this file in `custom_imports` and must find it: run mmdet with this folder in PYTHONPATH.
"""

from grootv import VARIANTS, GrootV
from mmengine.model import BaseModule
from mmdet.registry import MODELS


@MODELS.register_module()
class GrootVStages(BaseModule):
    """The four stages of a variant; a checkpoint of the original, or of this package, is loaded by `checkpoint`."""

    def __init__(self, variant: str, checkpoint: str | None = None, init_cfg: dict | None = None, **options):
        super().__init__(init_cfg)
        self.checkpoint = checkpoint
        self.network = GrootV(num_classes=0, **VARIANTS[variant] | options)
        self.network.drop_head()

    def init_weights(self):
        if self.checkpoint is not None:
            from grootv import load_original
            load_original(self.checkpoint, self.network)

    def forward(self, x):
        return tuple(self.network.forward_stages(x))
