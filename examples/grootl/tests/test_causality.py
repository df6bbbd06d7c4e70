"""In mode "causal" no token changes what came before it: not by a bit."""

import pytest
import torch

from models import ragged, small_model

LENGTHS = [23, 17, 9, 2]


def versions_with_another_token(ids, mask, count=8):
    """`count` times a position and the tokens with others there, in every row."""
    for at in torch.randperm(ids.shape[1] - 1)[:count].add(1).tolist():
        changed = ids.clone()
        changed[:, at] = torch.where(mask[:, at] == 1, 1 + (ids[:, at] + 40) % 96, 0)
        yield at, changed


def assert_nothing_before_changed(before, after, mask, at):
    assert torch.equal(before[:, :at][mask[:, :at] == 1], after[:, :at][mask[:, :at] == 1])
    rows = mask[:, at] == 1
    assert (before[rows, at] != after[rows, at]).any(1).all()


CONTEXTS = pytest.mark.parametrize("contexts", [None, 0, 5, LENGTHS, [11, 17, 3, 0]], ids=str)


@CONTEXTS
@pytest.mark.parametrize("training", (True, False))
def test_training_and_evaluation(contexts, training):
    model = small_model(num_hidden_layers=2).train(training)
    ids, mask = ragged(LENGTHS)
    options = {"attention_mask": mask, "context_length": None if contexts is None else torch.as_tensor(contexts)}
    before = model(ids, **options).logits
    assert before.requires_grad
    for at, changed in versions_with_another_token(ids, mask):
        assert_nothing_before_changed(before, model(changed, **options).logits, mask, at)


def test_training_on_labels_with_prompts():
    model = small_model().train()
    ids, mask = ragged(LENGTHS, left=False)
    labels = ids.masked_fill(mask == 0, -100).masked_fill(torch.arange(23) < torch.tensor([[9], [4], [8], [1]]), -100)
    before = model(ids, attention_mask=mask, labels=labels).logits
    for at, changed in versions_with_another_token(ids, mask):
        assert_nothing_before_changed(before, model(changed, attention_mask=mask, labels=labels).logits, mask, at)


@CONTEXTS
@torch.no_grad()
def test_prefill_and_decoding(contexts):
    """The last nine tokens are fed one or several at a time."""
    model = small_model()
    ids, mask = ragged([length + 9 for length in LENGTHS])
    prompt = ids.shape[1] - 9
    mask[:, prompt:] = 1

    def logits(ids):
        output = model(ids[:, :prompt], attention_mask=mask[:, :prompt], use_cache=True,
                       context_length=None if contexts is None else torch.as_tensor(contexts))
        parts = [output.logits]
        for first, end in ((0, 1), (1, 2), (2, 6), (6, 7), (7, 9)):
            parts.append(model(ids[:, prompt + first:prompt + end], cache_params=output.cache_params).logits)
        return torch.cat(parts, 1)

    before = logits(ids)
    for at, changed in versions_with_another_token(ids, mask, 20):
        assert_nothing_before_changed(before, logits(changed), mask, at)


def test_trees_matter_and_so_do_contexts():
    """Otherwise the tests above would show nothing."""
    ids, _ = ragged([30])
    model = small_model()
    logits = [model(ids, context_length=context).logits for context in (None, 20, 0)]
    assert (logits[0] - logits[1])[:, :20].abs().max() == 0
    for one, other in ((0, 1), (1, 2)):
        assert (logits[one] - logits[other]).abs().max() > 0.1
