"""Samples packed into rows get what they get alone, however the collator says where they begin; all else is refused."""

from __future__ import annotations

import pytest
import torch
from grootl.packing import Packing
from models import ragged, small_model
from transformers import DataCollatorWithFlattening

MODES = ("chain", "causal", "original")
LENGTHS = ((6, 1, 5), (4, 8))  # of two rows


def rows(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 97, (2, 12), generator=generator)


def told(lengths=LENGTHS):
    """The ways in which collators say it."""
    flat = [n for row in lengths for n in row]
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    numbers = torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths])
    bounds = torch.tensor([0, *flat]).cumsum(0).int()
    return {"position_ids": {"position_ids": positions}, "seq_idx": {"seq_idx": numbers.int()},
            "cu_seq_lens": {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 8, "max_length_k": 8},
            "all": {"position_ids": positions, "seq_idx": numbers, "cu_seq_lens_q": bounds}}


def alone(model, ids, lengths, **options):
    """The logits of each sample by itself, where it stands in the rows."""
    return torch.stack([torch.cat([model(part[None], **options).logits[0] for part in row.split(sizes)])
                        for row, sizes in zip(ids, lengths)])


@pytest.mark.parametrize("way", told())
@pytest.mark.parametrize("mode", MODES)
def test_samples_get_what_they_get_alone(mode, way):
    torch.manual_seed(0)
    model, ids = small_model(mode), rows()
    options = {"context_length": 0} if mode == "original" else {}  # which takes the least of a batch for all
    with torch.no_grad():
        wanted = alone(model, ids, LENGTHS, **options)
        found = model(ids, **told()[way], **options, output_hidden_states=True)
        whole = model(ids, **options).logits
    torch.testing.assert_close(found.logits, wanted, rtol=1e-5, atol=1e-5)
    assert (whole - wanted).abs().max() > 1e-2  # they would see each other
    assert all(states.shape == (2, 12, 24) for states in found.hidden_states)


def test_gradients_and_embeddings():
    torch.manual_seed(0)
    model, ids = small_model("causal").double(), rows()
    gradients = []
    for packed in (True, False):
        model.zero_grad()
        embedded = model.backbone.embeddings(ids).detach().requires_grad_()
        if packed:
            logits = model(inputs_embeds=embedded, **told()["position_ids"]).logits
        else:
            logits = torch.stack([torch.cat([model(inputs_embeds=part[None]).logits[0] for part in row.split(sizes)])
                                  for row, sizes in zip(embedded, LENGTHS)])
        logits.square().sum().backward()
        gradients.append([embedded.grad, *(p.grad for p in model.parameters() if p.grad is not None)])
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("left", [True, False])
def test_padding_beside_samples(left):
    torch.manual_seed(0)
    model, (ids, mask) = small_model("causal"), ragged([9, 12], left=left)
    lengths = ((4, 5), (3, 9))
    positions = [torch.cat([torch.arange(n) for n in row]) for row in lengths]
    positions[0] = torch.nn.functional.pad(positions[0], (3, 0) if left else (0, 3))
    with torch.no_grad():
        found = model(ids, attention_mask=mask, position_ids=torch.stack(positions)).logits
        for row, sizes in enumerate(lengths):
            wanted = alone(model, ids[row][mask[row].bool()][None], [sizes])[0]
            torch.testing.assert_close(found[row][mask[row].bool()], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["chain", "causal"])
def test_what_transformers_collator_makes(mode):
    """Loss and logits as of the samples in a padded batch."""
    torch.manual_seed(0)
    model = small_model(mode)
    samples = [{"input_ids": torch.randint(1, 97, (n,)).tolist()} for n in (7, 3, 5)]
    samples[0]["labels"] = [-100] * 3 + samples[0]["input_ids"][3:]  # a prompt, which chooses
    collated = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)(
        [{"labels": sample["input_ids"], **sample} for sample in samples])
    ids, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.long)
    labels = torch.full((3, 7), -100)
    for row, sample in enumerate(samples):
        tokens = torch.tensor(sample["input_ids"])
        ids[row, :len(tokens)], mask[row, :len(tokens)] = tokens, 1
        labels[row, :len(tokens)] = torch.tensor(sample.get("labels", sample["input_ids"]))
    with torch.no_grad():
        found = model(**{name: torch.as_tensor(value) if isinstance(value, list) else value
                         for name, value in collated.items()})
        wanted = model(ids, attention_mask=mask, labels=labels)
    torch.testing.assert_close(found.logits[0], wanted.logits[mask.bool()], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, wanted.loss)


def test_one_sample_a_row_is_no_packing():
    """Positions that only go on, behind a cache too, are what transformers gives by itself."""
    assert Packing.of(2, 5, None, torch.arange(5)[None], None, None, None) is None
    assert Packing.of(1, 2, None, torch.tensor([[7, 8]]), None, None, None) is None
    real = torch.tensor([[False, False, True, True], [True] * 4])
    assert Packing.of(2, 4, real, torch.tensor([[1, 1, 0, 1], [0, 1, 2, 3]]), None, None, None) is None
    model, ids = small_model("causal"), rows()
    tokens = model.generate(ids[:, :6], max_new_tokens=4, do_sample=False, pad_token_id=0)
    again = model.generate(ids[:, :6], max_new_tokens=4, do_sample=False, pad_token_id=0, use_cache=False)
    assert torch.equal(tokens, again)


POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2]])
ERRORS = {
    "misspelt": (dict(context_lenght=3), TypeError, "GrootLForCausalLM.forward got unexpected arguments: context_lenght"),
    "token types": (dict(token_type_ids=POSITIONS), TypeError, "unexpected arguments: token_type_ids"),
    "attention": (dict(output_attentions=True), TypeError, "unexpected arguments: output_attentions"),
    "shape": (dict(position_ids=POSITIONS[0]), ValueError, r"position_ids must have shape \(B, L\) = \(1, 6\), got \(6,\)"),
    "length": (dict(seq_idx=POSITIONS[:, 1:]), ValueError, r"seq_idx must have shape .*, got \(1, 5\)"),
    "bounds": (dict(cu_seq_lens_q=torch.tensor([0, 3])), ValueError, r"cu_seq_lens_q must ascend from 0 to B·L = 6"),
    "order": (dict(cu_seq_lens_q=torch.tensor([0, 4, 3, 6])), ValueError, "cu_seq_lens_q must ascend"),
    "other": (dict(position_ids=POSITIONS, seq_idx=torch.zeros(1, 6)), ValueError, "seq_idx must say .* where position_ids does"),
    "keys": (dict(cu_seq_lens_q=torch.tensor([0, 3, 6]), cu_seq_lens_k=torch.tensor([0, 2, 6])), ValueError, "cu_seq_lens_k must"),
    "cache": (dict(position_ids=POSITIONS, use_cache=True), ValueError, "packed samples can't be cached"),
    "context": (dict(position_ids=POSITIONS, context_length=4), ValueError, r"context_length must be in \[0, L\] = \[0, 3\]"),
    "mask": (dict(attention_mask=torch.tensor([[1, 1, 1, 2, 2, 2]])), ValueError, r"attention_mask must hold 0 and 1, got \[1, 2\]"),
    "additive mask": (dict(attention_mask=torch.tensor([[0.0] * 3 + [-1e9] * 3])), ValueError, "attention_mask must hold 0 and 1"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors(what):
    arguments, kind, message = ERRORS[what]
    with pytest.raises(kind, match=message):
        small_model("causal")(torch.ones(1, 6, dtype=torch.long), **arguments)


def test_the_model_below_refuses_too():
    with pytest.raises(TypeError, match="GrootLModel.forward got unexpected arguments: num_items_in_batch"):
        small_model("chain").backbone(torch.ones(1, 3, dtype=torch.long), num_items_in_batch=3)
