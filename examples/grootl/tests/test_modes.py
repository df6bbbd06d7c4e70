"""What the modes are equal to, what loads into them, and everything else that transformers' Mamba takes."""

import copy
import json

import grootl
import pytest
import torch
from grootl import GrootLConfig, GrootLForCausalLM
from grootl.cache import LayerCache
from grootl.mixer import Sequences
from transformers import (
    AutoConfig, AutoModel, AutoModelForCausalLM, BertConfig, BertModel, MambaConfig, MambaForCausalLM)

from models import SIZES, ragged, small_model

MODES = ("chain", "original", "causal")


def mamba_and(mode, **fields):
    """transformers' Mamba and a GrootL model with its weights."""
    model = small_model(mode, **fields)
    mamba = MambaForCausalLM(MambaConfig(**SIZES)).eval()
    mamba.load_state_dict(model.state_dict())
    return mamba, model


def assert_near(got, expected, limit=1e-5):
    assert got.shape == expected.shape and (got - expected).abs().max() <= limit * expected.abs().max().clamp(min=1e-3)


# ---- Equal to Mamba ----


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("padding", (None, "left", "right"))
@pytest.mark.parametrize(("mode", "fields"), [("chain", {}), ("original", {"mixing": 0}), ("causal", {"mixing": 0.0})])
def test_logits_and_gradients_equal_those_of_mamba(mode, fields, padding, training):
    mamba, model = (m.train(training) for m in mamba_and(mode, **fields))
    ids, mask = ragged([21, 13, 4], left=padding == "left")
    labels = ids.masked_fill(mask == 0, -100)
    options = {"labels": labels, "attention_mask": None if padding is None else mask}
    expected, got = mamba(ids, use_cache=False, **options), model(ids, **options)
    assert_near(got.logits, expected.logits)
    assert_near(got.loss, expected.loss)
    for one, other in zip(*(torch.autograd.grad(output.loss, list(m.parameters()))
                            for output, m in ((got, model), (expected, mamba)))):
        assert_near(one, other)


@torch.no_grad()
def test_cached_logits_equal_those_of_mamba():
    mamba, model = mamba_and("chain")
    ids, mask = ragged([14, 9])
    expected, got = (m(ids, attention_mask=mask, use_cache=True) for m in (mamba, model))
    assert_near(got.logits, expected.logits)
    for token in torch.randint(1, 97, (6, 2, 1)):
        assert_near(model(token, cache_params=got.cache_params).logits,
                    mamba(token, cache_params=expected.cache_params, use_cache=True).logits)
    generated = [m.generate(ids, attention_mask=mask, max_new_tokens=25, do_sample=False) for m in (mamba, model)]
    assert torch.equal(*generated)


def test_causal_trees_with_a_window_of_one_have_mixing_times_the_chain_too():
    model, chain = small_model(window=1, num_hidden_layers=1), small_model("chain", num_hidden_layers=1)
    chain.load_state_dict(model.state_dict())
    x = torch.randn(2, 9, 24)
    for m in (model, chain):
        torch.nn.init.zeros_(m.backbone.layers[0].mixer.D)
    causal, plain = (m.backbone.layers[0].mixer(x, grootl.mixer.Sequences.of(9)) for m in (model, chain))
    torch.testing.assert_close(causal, 1.7 * plain)


def naive_causal(mixer, x):
    """The equations, token by token, with the states and features in memory."""
    u, z = mixer.in_proj(x).chunk(2, 2)
    u = torch.nn.functional.silu(mixer.conv1d(u.transpose(1, 2))[..., :x.shape[1]]).transpose(1, 2)
    rank, B, C = mixer.x_proj(u).split([mixer.time_step_rank, 5, 5], 2)
    step = torch.nn.functional.softplus(mixer.dt_proj(rank))
    drive = (step * u)[..., None] * B[:, :, None]
    decay = torch.exp(-step[..., None] * mixer.A_log.exp())
    rows = []
    for row in range(x.shape[0]):
        chain, tree = [], []
        for t in range(x.shape[1]):
            entering, kept = drive[row, t], decay[row, t]
            earlier = range(max(t - mixer.window, 0), t)
            likeness = [torch.cosine_similarity(drive[row, s].flatten(), entering.flatten(), 0).item() for s in earlier]
            parent = tree[earlier[likeness.index(max(likeness))]] if t else 0
            tree.append(entering + kept * parent)
            chain.append(entering + kept * (chain[-1] if t else 0))
        states = torch.stack(chain) + mixer.mixing * torch.stack(tree)
        rows.append((states * C[row, :, None]).sum(2) + mixer.D * u[row])
    return mixer.out_proj(torch.stack(rows) * torch.nn.functional.silu(z))


@pytest.mark.parametrize("window", (2, 3, 40))
def test_causal_follows_its_equations(window):
    model = small_model(window=window).double()
    x = torch.randn(2, 33, 24, dtype=torch.float64)
    for block in model.backbone.layers:
        torch.testing.assert_close(block.mixer(x, grootl.mixer.Sequences.of(33)), naive_causal(block.mixer, x),
                                   atol=1e-6, rtol=1e-5)


# ---- Loading and saving ----


@pytest.mark.parametrize("mode", MODES)
def test_an_ordinary_mamba_loads_with_equal_weights_and_saves_as_grootl(tmp_path, mode, caplog):
    mamba = MambaForCausalLM(MambaConfig(**SIZES | {"tie_word_embeddings": True}))
    mamba.save_pretrained(tmp_path / "mamba")
    model, found = GrootLForCausalLM.from_pretrained(tmp_path / "mamba", mode=mode, mixing=0.25, window=4,
                                                     output_loading_info=True)
    assert not any(found.values()) and not caplog.records
    assert model.state_dict().keys() == mamba.state_dict().keys()
    assert all(torch.equal(values, mamba.state_dict()[name]) for name, values in model.state_dict().items())
    assert model.lm_head.weight is model.backbone.embeddings.weight
    model.save_pretrained(tmp_path / "grootl")
    assert json.loads((tmp_path / "grootl" / "config.json").read_text())["model_type"] == "grootl"
    ids, _ = ragged([11])
    for load in (GrootLForCausalLM, AutoModelForCausalLM):
        again = load.from_pretrained(tmp_path / "grootl")
        assert type(again) is GrootLForCausalLM
        assert (again.config.mode, again.config.mixing, again.config.window) == (mode, 0.25, 4)
        assert torch.equal(*(m.eval()(ids, context_length=9).logits for m in (model, again)))
    assert type(AutoConfig.from_pretrained(tmp_path / "grootl")) is GrootLConfig
    assert type(AutoModel.from_pretrained(tmp_path / "grootl")) is grootl.GrootLModel


def test_another_model_does_not_load(tmp_path):
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9,
                         intermediate_size=8)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} must hold a model of type 'mamba' or 'grootl', got 'bert'"):
        GrootLForCausalLM.from_pretrained(tmp_path)


# ---- Contexts ----


def test_contexts_come_from_labels_without_padding():
    for mode in MODES[1:]:
        model = small_model(mode)
        for left in (True, False):
            ids, mask = ragged([15, 11, 8], left=left)
            prompt = torch.tensor([6, 4, 7])
            before = mask.cumsum(1) <= prompt[:, None]
            labels = ids.masked_fill(before | (mask == 0), -100)
            derived = model(ids, attention_mask=mask, labels=labels).logits
            assert torch.equal(derived, model(ids, attention_mask=mask, context_length=prompt).logits)


def test_rows_without_a_prompt():
    """They are all context in "causal"; in "original" they have none, since their tokens would see their labels."""
    ids, _ = ragged([12, 12])
    causal, original = small_model("causal"), small_model("original")
    assert torch.equal(causal(ids, labels=ids).logits, causal(ids).logits)
    assert torch.equal(original(ids, labels=ids).logits, original(ids, context_length=0).logits)
    with pytest.raises(ValueError, match="mode 'original' needs context_length"):
        original(ids)


# ---- What else Mamba takes ----


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
@pytest.mark.parametrize("mode", MODES)
def test_gradient_checkpointing_changes_nothing(mode):
    model = small_model(mode).train()
    ids, mask = ragged([13, 8])
    results = []
    for on in (False, True):
        if on:
            model.gradient_checkpointing_enable()
        loss = model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), use_cache=on or None).loss
        results.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    assert all(torch.equal(one, other) for one, other in zip(*results))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ("autocast", "weights"))
def test_bfloat16(mode, how):
    model = small_model(mode)
    ids, mask = ragged([13, 8])
    labels = ids.masked_fill(mask == 0, -100)
    exact = model(ids, attention_mask=mask, labels=labels, context_length=6)
    if how == "weights":
        model = model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        output = model(ids, attention_mask=mask, labels=labels, context_length=6)
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert (output.loss - exact.loss).abs() < 0.1 and (output.logits - exact.logits).abs().max() > 1e-4


class Adapter(torch.nn.Module):
    """As a library of adapters puts it in a layer's place."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer

    @property
    def weight(self):
        return self.base_layer.weight

    @property
    def bias(self):
        return self.base_layer.bias

    def forward(self, x):
        return self.base_layer(x)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
@pytest.mark.parametrize("how", ("autocast", "weights"))
@pytest.mark.parametrize("adapted", (False, True))
def test_small_steps_in_half_types(dtype, how, adapted):
    """Along a long row, whose decays are near 1, against float64; whole, and token by token behind a cache."""
    mixer = small_model("chain", num_hidden_layers=1, hidden_size=16).backbone.layers[0].mixer
    with torch.no_grad():
        mixer.dt_proj.bias.copy_(torch.expm1(torch.logspace(-3, -1, 32)).log())
        mixer.dt_proj.weight.mul_(0.1)
        mixer.A_log.zero_()
        for parameter in mixer.parameters():
            parameter.copy_(parameter.to(dtype))
    if adapted:
        mixer.dt_proj = Adapter(mixer.dt_proj)
    hidden, sequences = torch.randn(1, 2048, 16).to(dtype) + 1, Sequences.of(2048)
    exact = copy.deepcopy(mixer).double()
    wanted = exact(hidden.double(), sequences)
    computed = torch.float32 if how == "autocast" else dtype
    mixer, hidden = mixer.to(computed), hidden.to(computed)
    with torch.autocast("cpu", dtype, enabled=how == "autocast"):
        found = mixer(hidden, sequences)
        cache = LayerCache()
        mixer(hidden[:, :2000], Sequences.of(2000), cache)
        behind = mixer(hidden[:, 2000:], Sequences.of(48), cache)
        u = torch.randn(1, 32, 9).to(dtype)
        signals, r = mixer._signals(u, u), mixer.x_proj(u.mT)[..., :mixer.time_step_rank]
    step = torch.nn.functional.softplus(exact.dt_proj(r.double()).mT)
    assert found.dtype == behind.dtype == dtype and cache.states.chain.dtype == torch.float32
    for values, right in ((found, wanted), (behind, wanted[:, 2000:])):
        assert (values.double() - right).abs().max() < 0.02 * right.abs().max()
    assert ((signals.step.double() - step) / step).abs().max() < 1e-4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fill", (float("nan"), float("inf"), 1e38))
def test_padding_reaches_nothing(mode, fill):
    model = small_model(mode)
    ids, mask = ragged([13, 8])
    labels = ids.masked_fill(mask.cumsum(1) < 2, -100)  # a row's first token is told from the padding before it
    embeddings = model.get_input_embeddings()(ids).detach()

    def run(fill):
        given = embeddings.masked_fill(mask[:, :, None] == 0, fill).requires_grad_()
        output = model(inputs_embeds=given, attention_mask=mask, labels=labels, context_length=6)
        used = [parameter for name, parameter in model.named_parameters() if "embeddings" not in name]
        gradients = torch.autograd.grad(output.loss, (given, *used))
        return output.loss.detach(), output.logits[mask > 0].detach(), *gradients

    for found, wanted in zip(run(fill), run(0.0)):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("mode", MODES)
def test_embeddings_hidden_states_tuples_and_kept_logits(mode):
    model = small_model(mode)
    ids, mask = ragged([13, 8])
    options = {"attention_mask": mask, "context_length": 8}
    output = model(ids, output_hidden_states=True, **options)
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids), **options).logits, output.logits)
    assert torch.equal(model(ids, return_dict=False, **options)[0], output.logits)
    assert len(output.hidden_states) == 4
    assert torch.equal(model.lm_head(output.hidden_states[-1]), output.logits)
    torch.testing.assert_close(model(ids, logits_to_keep=2, **options).logits, output.logits[:, -2:])


@pytest.mark.parametrize("mode", MODES)
def test_the_step_projection_may_be_an_adapters_layer(mode):
    """Mamba reads the weight of dt_proj and of conv1d, so that an adapter there would do nothing."""
    class Doubled(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return 2 * self.layer(x)

    model, ids = small_model(mode), ragged([9])[0]
    with_layer, by_weight = [], []
    for name in ("dt_proj", "conv1d", "x_proj", "in_proj", "out_proj"):
        mixer = model.backbone.layers[0].mixer
        layer = getattr(mixer, name)
        setattr(mixer, name, Doubled(layer))
        with_layer.append(model(ids, context_length=6).logits)
        setattr(mixer, name, layer)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(2)
            by_weight.append(model(ids, context_length=6).logits)
            for parameter in layer.parameters():
                parameter.div_(2)
    for one, other in zip(with_layer, by_weight):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_compiles(mode):
    """In one graph; mode "original" reads the least context, and there the graph breaks."""
    model = small_model(mode, num_hidden_layers=1).train()
    ids, mask = ragged([13, 8])
    options = {"attention_mask": mask, "labels": ids.masked_fill(mask.cumsum(1) < 5, -100)}
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=mode != "original")
    results = []
    for run in (model, compiled):
        output = run(ids, **options)
        results.append((output.logits, *torch.autograd.grad(output.loss, list(model.parameters()))))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)


# ---- Errors ----


@pytest.mark.parametrize(("fields", "message"), [
    ({"mode": "tree"}, "mode must be one of 'chain', 'original', 'causal', got 'tree'"),
    ({"mixing": float("nan")}, "mixing must be a finite number, got nan"),
    ({"mixing": float("inf")}, "mixing must be a finite number, got inf"),
    ({"window": 0}, "window must be at least 1, got 0")])
def test_errors_of_the_configuration(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        GrootLConfig(**fields)
    GrootLConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        GrootLConfig.from_pretrained(tmp_path, **fields)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"context_length": 12}, ValueError, r"context_length must be in \[0, L\] = \[0, 11\], got 12"),
    ({"context_length": torch.tensor([3, -1])}, ValueError, r"context_length must be in .*got \[3, -1\]"),
    ({"context_length": torch.tensor([3, 4, 5])}, ValueError, r"\(B,\) = \(2,\), got torch.int64 of shape \(3,\)"),
    ({"context_length": 1.5}, ValueError, "context_length must be an int.*got torch.float32"),
    ({"attention_mask": torch.ones(2, 9)}, ValueError, r"attention_mask must .* \(B, L\) = \(2, 11\), got \(2, 9\)"),
    ({"inputs_embeds": torch.zeros(2, 11, 24)}, ValueError, "either input_ids or inputs_embeds"),
    ({"cache_params": object()}, TypeError, "cache_params must be a GrootLCache, got object")])
def test_errors_of_the_model(options, error, message):
    with pytest.raises(error, match=message):
        small_model()(torch.ones(2, 11, dtype=torch.long), **options)
