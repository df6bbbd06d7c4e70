"""The models in timm's registry."""

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from .model import VARIANTS, GrootV


def _cfg(**kwargs) -> dict:
    return dict(num_classes=1000, input_size=(3, 224, 224), pool_size=(7, 7), crop_pct=0.875, interpolation="bicubic",
                mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), first_conv="patch_embed.conv1",
                classifier="head", fixed_input_size=False, min_input_size=(3, 32, 32)) | kwargs


default_cfgs = generate_default_cfgs({
    "grootv_tiny": _cfg(),
    "grootv_small": _cfg(),
    "grootv_base": _cfg(),
    "grootv_large": _cfg(input_size=(3, 384, 384), pool_size=(12, 12), crop_pct=1.0),
})


def _create(name: str, pretrained: bool, **kwargs) -> GrootV:
    if pretrained:
        raise ValueError(f"no weights of {name} come with this package: create it with pretrained=False and load the "
                         "original's checkpoint by grootv.load_original(path, model)")
    features = dict(out_indices=(0, 1, 2, 3), feature_cls="getter")
    return build_model_with_cfg(GrootV, name, pretrained, feature_cfg=features, **VARIANTS[name] | kwargs)


@register_model
def grootv_tiny(pretrained: bool = False, **kwargs) -> GrootV:
    return _create("grootv_tiny", pretrained, **kwargs)


@register_model
def grootv_small(pretrained: bool = False, **kwargs) -> GrootV:
    return _create("grootv_small", pretrained, **kwargs)


@register_model
def grootv_base(pretrained: bool = False, **kwargs) -> GrootV:
    return _create("grootv_base", pretrained, **kwargs)


@register_model
def grootv_large(pretrained: bool = False, **kwargs) -> GrootV:
    return _create("grootv_large", pretrained, **kwargs)
