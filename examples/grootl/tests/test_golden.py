"""Mode "original" gives the published algorithm's numbers, and has its properties."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from grootl import GrootLConfig
from grootl.mixer import GrootLMixer, Sequences

from models import ragged, small_model

GOLDEN = sorted((Path(__file__).parent / "data").glob("grootl_*.npz"))


def of_golden(path, **fields):
    """The file's arrays, a mixer with its weights, and the sequences that it was run on."""
    arrays = {name: torch.from_numpy(values) for name, values in np.load(path).items() if values.dtype.kind != "U"}
    fields = {"mode": "original", **json.loads(str(np.load(path)["config"])), **fields}
    config = GrootLConfig(num_hidden_layers=1, **fields)
    mixer = GrootLMixer(config, 0)
    mixer.load_state_dict({name[6:]: values for name, values in arrays.items() if name.startswith("param/")})
    return arrays, mixer, Sequences.of(arrays["x"].shape[1], None, arrays["contex_len"])


def assert_near(got, expected, limit):
    assert (got - expected).abs().max() <= limit * expected.abs().max()


def test_both_files_are_there():
    assert len(GOLDEN) == 2


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_outputs_and_gradients_equal_the_golden_ones(path):
    arrays, mixer, sequences = of_golden(path)
    x = arrays["x"].requires_grad_()
    y = mixer(x, sequences)
    y.backward(arrays["grad_y"])
    assert_near(y, arrays["y"], 1e-6)
    assert_near(x.grad, arrays["grad_x"], 1e-6)
    for name, parameter in mixer.named_parameters():
        assert_near(parameter.grad, arrays[f"grad/{name}"], 2e-6)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_chain_equals_the_golden_mamba(path):
    arrays, mixer, sequences = of_golden(path, mode="chain")
    assert_near(mixer(arrays["x"], sequences), arrays["y_mamba"], 1e-6)


def test_the_tree_equals_the_golden_one(monkeypatch):
    arrays, mixer, sequences = of_golden(GOLDEN[0])
    trees, build = [], mixer._original_tree
    monkeypatch.setattr(mixer, "_original_tree", lambda *signals: trees.append(build(*signals)) or trees[-1])
    mixer(arrays["x"], sequences)
    last = arrays["x"].shape[1] - 1
    for edges, golden in zip(trees[0].edges, arrays["tree_pairs/0"]):  # whose vertices count from the last token
        pairs = (last - edges).sort(1).values.tolist()
        assert sorted(pairs) == golden.tolist()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_least_context_is_everybodys(path):
    arrays, mixer, sequences = of_golden(path)
    least = sequences._replace(context_length=arrays["contex_len"].min().expand(2))
    assert torch.equal(mixer(arrays["x"], sequences), mixer(arrays["x"], least))


def test_with_a_context_of_two_tokens_it_is_not_mamba_but_has_one_and_mixing_times_its_states():
    model, chain = (small_model(mode, num_hidden_layers=1) for mode in ("original", "chain"))
    chain.load_state_dict(model.state_dict())
    x = torch.randn(2, 9, 24)
    mixers = [m.backbone.layers[0].mixer for m in (model, chain)]
    sequences = Sequences.of(9, None, torch.tensor([2, 5]))
    with torch.no_grad():
        for mixer in mixers:
            mixer.D.zero_()
        torch.testing.assert_close(mixers[0](x, sequences), 1.7 * mixers[1](x, sequences))


def test_inside_the_context_later_tokens_change_earlier_logits_and_behind_it_they_do_not():
    model, context = small_model("original"), 9
    ids, _ = ragged([20, 20])
    before = model(ids, context_length=context).logits
    seen = []
    for at in range(1, 20):
        changed = ids.clone()
        changed[:, at] = 1 + changed[:, at] % 96
        difference = (model(changed, context_length=context).logits - before)[:, :at].abs().max()
        if at >= context:
            assert difference < 1e-5
        seen += [at] if difference > 1e-2 else []
    assert len(seen) > context // 2 and max(seen) < context


def test_padding_changes_nothing():
    """Rows padded on either side have the logits that they have alone, with the batch's least context."""
    model = small_model("original")
    for left in (True, False):
        ids, mask = ragged([17, 12, 9], left=left)
        together = model(ids, attention_mask=mask, context_length=torch.tensor([17, 8, 9])).logits
        for row, there in enumerate(mask.bool()):
            alone = model(ids[row:row + 1, there], context_length=8).logits
            torch.testing.assert_close(together[row, there], alone[0], atol=2e-5, rtol=1e-5)
