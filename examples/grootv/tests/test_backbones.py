"""GrootV as a backbone of transformers."""

import pytest
import torch
from transformers import AutoBackbone, AutoConfig, UperNetConfig, UperNetForSemanticSegmentation

from grootv import GrootV
from grootv.backbone import GrootVBackbone, GrootVConfig

SMALL = dict(channels=8, depths=(1, 1, 1, 1))


def picture(height=40, width=33):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_feature_maps():
    config = GrootVConfig(**SMALL, out_features=["stage1", "stage3"], trees="stage")
    backbone = AutoBackbone.from_config(config).eval()
    assert isinstance(backbone, GrootVBackbone) and backbone.channels == [8, 32]
    whole = GrootV(**SMALL, trees="stage").eval()
    whole.drop_head()
    whole.load_state_dict(backbone.grootv.state_dict())
    maps, stages = backbone(picture()).feature_maps, whole.forward_stages(picture())
    assert len(maps) == 2 and torch.equal(maps[0], stages[0]) and torch.equal(maps[1], stages[2])
    assert AutoBackbone.from_config(GrootVConfig(**SMALL)).channels == [64]


def test_initial_values_are_the_network_s():
    torch.manual_seed(0)
    state = GrootVBackbone(GrootVConfig(**SMALL)).grootv.state_dict()
    torch.manual_seed(0)
    wanted = GrootV(**SMALL, num_classes=0)
    wanted.drop_head()
    assert all(torch.equal(state[key], value) for key, value in wanted.state_dict().items())


def test_saving_and_loading(tmp_path):
    options = dict(SMALL, layer_scale=0.5, d_state=2, topology="snake", metric="l2", in_chans=3, mlp_ratio=2.0)
    backbone = GrootVBackbone(GrootVConfig(**options, out_indices=[1, 3])).eval()
    backbone.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, GrootVConfig) and config.topology == "snake"
    assert config.out_features == ["stage2", "stage4"]
    again = GrootVBackbone.from_pretrained(tmp_path).eval()
    maps, wanted = (network(picture()).feature_maps for network in (again, backbone))
    assert len(maps) == 2 and all(torch.equal(a, b) for a, b in zip(maps, wanted))


def test_upernet(tmp_path):
    backbone = GrootVConfig(**SMALL, out_indices=[0, 1, 2, 3])
    config = UperNetConfig(backbone_config=backbone, hidden_size=16, num_labels=5, auxiliary_in_channels=32,
                           auxiliary_channels=8)
    model = UperNetForSemanticSegmentation(config).train()
    model.backbone.gradient_checkpointing_enable()
    labels = torch.randint(0, 5, (2, 40, 33))
    model(picture(), labels=labels).loss.backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())  # DDP would wait for others
    model.eval().save_pretrained(tmp_path)
    again = UperNetForSemanticSegmentation.from_pretrained(tmp_path).eval()
    logits = model(picture()).logits
    assert logits.shape == (2, 5, 40, 33)
    torch.testing.assert_close(again(picture()).logits, logits)


@pytest.mark.parametrize("options, message", [
    (dict(out_features=["stage5"]), "out_features must be a subset"),
    (dict(topology="cross"), "topology must be one of"),
])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        GrootVBackbone(GrootVConfig(**SMALL | options))
