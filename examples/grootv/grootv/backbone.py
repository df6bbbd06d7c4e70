"""GrootV as a backbone of transformers, for its UperNet and other dense heads. Importing this registers it there."""

from torch import Tensor
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

from .model import GrootV


class GrootVConfig(BackboneConfigMixin, PreTrainedConfig):
    """What `GrootV` takes, and `out_features` or `out_indices` among the stages "stage1" to "stage4"."""

    model_type = "grootv"

    channels: int = 80
    depths: list[int] | tuple[int, ...] = (2, 2, 9, 2)
    layer_scale: float | None = None
    drop_path_rate: float = 0.1
    mlp_ratio: float = 4.0
    d_state: int = 1
    in_chans: int = 3
    topology: str = "tree"
    trees: str = "block"
    metric: str = "cosine"
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        self.depths = list(self.depths)
        self.stage_names = [f"stage{i + 1}" for i in range(len(self.depths))]
        self.set_output_features_output_indices(out_features=kwargs.pop("out_features", None),
                                                out_indices=kwargs.pop("out_indices", None))
        super().__post_init__(**kwargs)


class GrootVBackbone(BackboneMixin, PreTrainedModel):
    """The pyramid without its classifier: `feature_maps` of strides 4, 8, 16, 32, as far as `out_features` names them.

    >>> import torch
    >>> config = GrootVConfig(channels=16, depths=(1, 1, 1, 1), out_features=["stage1", "stage4"])
    >>> [tuple(maps.shape) for maps in AutoBackbone.from_config(config)(torch.zeros(1, 3, 32, 64)).feature_maps]
    [(1, 16, 8, 16), (1, 128, 1, 2)]

    A folder that `save_pretrained` wrote is read by `GrootVBackbone.from_pretrained`: `AutoBackbone.from_pretrained` of
    transformers 5.23 asks the hub for it.
    """

    config_class = GrootVConfig
    base_model_prefix = "grootv"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    has_attentions = False

    def __init__(self, config: GrootVConfig):
        super().__init__(config)
        self.grootv = GrootV(config.channels, config.depths, 0, layer_scale=config.layer_scale,
                             drop_path_rate=config.drop_path_rate, mlp_ratio=config.mlp_ratio, d_state=config.d_state,
                             in_chans=config.in_chans, topology=config.topology, trees=config.trees,
                             metric=config.metric)
        self.grootv.drop_head()
        self.num_features = [info["num_chs"] for info in self.grootv.feature_info]
        self.post_init()

    def _init_weights(self, module):
        """GrootV has initialised itself."""

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict | None = None) -> None:
        self.grootv.set_grad_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        self.grootv.set_grad_checkpointing(False)

    def forward(self, pixel_values: Tensor, **kwargs) -> BackboneOutput:
        stages = self.grootv.forward_stages(pixel_values)
        chosen = tuple(stage for name, stage in zip(self.stage_names, stages) if name in self.out_features)
        return BackboneOutput(feature_maps=chosen)


AutoConfig.register("grootv", GrootVConfig)
AutoBackbone.register(GrootVConfig, GrootVBackbone)
