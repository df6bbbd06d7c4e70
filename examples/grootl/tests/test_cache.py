"""Generation with the cache: the same tokens as without, in memory that doesn't grow."""

import threading

import pytest
import torch
from grootl.cache import GrootLCache
from transformers import TextIteratorStreamer, TextStreamer

from models import ragged, small_model
from small_models import byte_tokenizer

MODES = pytest.mark.parametrize("mode", ("chain", "original", "causal"))
LENGTHS = [13, 9, 7, 13]


def generate(model, ids, mask, **options):
    return model.generate(ids, attention_mask=mask, **{"max_new_tokens": 30, "do_sample": False, **options})


@MODES
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2},
                                     {"num_beams": 2, "do_sample": True}, {"eos_token_id": list(range(1, 20))}],
                         ids=str)
def test_generates_the_same_tokens_as_without(mode, options):
    model = small_model(mode)
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        texts.append(generate(model, *ragged_prompts(), use_cache=use_cache, **options))
    assert torch.equal(*texts) and texts[0][:, 13:].unique().numel() > 10


def ragged_prompts():
    generator = torch.Generator().manual_seed(5)
    ids, mask = ragged(LENGTHS)
    return torch.randint(1, 97, ids.shape, generator=generator) * mask, mask


@pytest.mark.parametrize("window", (1, 2, 30))
def test_windows_shorter_and_longer_than_the_prompt(window):
    model = small_model(window=window)
    for options in ({}, {"context_length": None}, {"context_length": torch.tensor([3, 9, 0, 8])}):
        texts = [generate(model, *ragged_prompts(), use_cache=use_cache, **options) for use_cache in (True, False)]
        assert torch.equal(*texts)


@MODES
def test_each_row_of_a_batch_gets_what_it_gets_alone(mode):
    """In mode "original" that takes equal contexts, since all rows have the least."""
    model = small_model(mode)
    ids, mask = ragged_prompts()
    options = {"context_length": 7} if mode == "original" else {}
    together = generate(model, ids, mask, **options)
    for row, length in enumerate(LENGTHS):
        alone = generate(model, ids[row:row + 1, -length:], mask[row:row + 1, -length:], **options)
        assert torch.equal(together[row, -30:], alone[0, -30:])


@MODES
@pytest.mark.parametrize("left", (True, False))
@torch.no_grad()
def test_logits_behind_the_cache(mode, left):
    """The prompt's are those without a cache to the bit, of the tokens behind to rounding; right padding is skipped."""
    model = small_model(mode)
    ids, mask = ragged(LENGTHS, left=left)
    coming = torch.randint(1, 97, (4, 12))
    context = torch.tensor([5, 9, 6, 6])
    output = model(ids, attention_mask=mask, context_length=context, use_cache=True)
    assert torch.equal(output.logits, model(ids, attention_mask=mask, context_length=context).logits)
    parts = [model(coming[:, first:end], cache_params=output.cache_params).logits
             for first, end in ((0, 1), (1, 2), (2, 7), (7, 12))]
    for row, there in enumerate(mask.bool()):
        whole = torch.cat((ids[row, there], coming[row]))[None]
        expected = model(whole, context_length=5 if mode == "original" else context[row].item()).logits[:, -12:]
        torch.testing.assert_close(torch.cat(parts, 1)[row:row + 1], expected, atol=2e-5, rtol=1e-5)


@MODES
@torch.no_grad()
def test_logits_behind_the_cache_in_bfloat16(mode):
    """States are remembered in float32."""
    exact = small_model(mode)
    model = small_model(mode).to(torch.bfloat16)
    model.load_state_dict(exact.state_dict())
    ids, coming = torch.randint(1, 97, (2, 9)), torch.randint(1, 97, (2, 6))
    output = model(ids, context_length=9, use_cache=True)
    parts = [model(token, cache_params=output.cache_params).logits for token in coming.split(1, 1)]
    expected = exact(torch.cat((ids, coming), 1), context_length=9).logits
    assert all(layer.states.chain.dtype == torch.float32 for layer in output.cache_params.layers)
    assert (torch.cat((output.logits, *parts), 1) - expected).abs().mean() < 0.05 * expected.abs().mean()


@MODES
@torch.no_grad()
def test_memory_does_not_grow(mode):
    model = small_model(mode)

    def held(tokens):
        cache = model(torch.randint(1, 97, (2, tokens)), use_cache=True, context_length=3).cache_params
        model(torch.randint(1, 97, (2, tokens)), cache_params=cache)
        assert cache.get_seq_length() == 2 * tokens
        tensors = [tensor for layer in cache.layers for tensor in layer.states if tensor is not None]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    assert held(4) == held(40)
    states = 2 * 48 * 5 * 4 * {"chain": 1, "original": 2, "causal": 4}[mode]
    assert 3 * states < held(4) < 3 * (states + 2 * (48 * 6 + 5 * 3 + 4) * 4 + 1)


@torch.no_grad()
def test_a_cache_goes_on_in_another_call():
    """A second turn: generate() is given everything so far, and the cache of the first turn."""
    model = small_model()
    ids, mask = ragged([9, 9])
    cache = GrootLCache(model.config)
    first = generate(model, ids, mask, cache_params=cache, max_new_tokens=5)
    assert cache.get_seq_length() == 13  # the last token has not been fed yet
    turn = torch.cat((first, torch.randint(1, 97, (2, 4))), 1)
    second = generate(model, turn, torch.ones_like(turn), cache_params=cache, max_new_tokens=6)
    assert torch.equal(second, generate(model, turn, torch.ones_like(turn), max_new_tokens=6, context_length=9))
    with pytest.raises(ValueError, match="the prompt must have tokens behind the 23 in the cache, got 9"):
        generate(model, ids, mask, cache_params=cache)
    with pytest.raises(ValueError, match="attention_mask must be 1 for all tokens behind cached ones"):
        model(ids, attention_mask=torch.tensor([[0] + [1] * 8, [1] * 9]), cache_params=cache)
    cache.reset()
    assert torch.equal(generate(model, ids, mask, cache_params=cache, max_new_tokens=5), first)


@torch.no_grad()
def test_rows_of_a_cache_can_be_selected_and_repeated():
    model = small_model()
    ids, mask = ragged_prompts()
    token, logits = torch.randint(1, 97, (4, 1)), []
    for change, rows in ((lambda cache: cache.batch_select_indices(torch.tensor([2, 0])), [2, 0]),
                         (lambda cache: cache.reorder_cache(torch.tensor([3, 3, 0, 1])), [3, 3, 0, 1]),
                         (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2, 3, 3])):
        caches = [model(ids, attention_mask=mask, use_cache=True).cache_params for _ in range(2)]
        change(caches[0])
        logits = [model(token[rows], cache_params=caches[0]).logits, model(token, cache_params=caches[1]).logits[rows]]
        torch.testing.assert_close(*logits)
    with pytest.raises(RuntimeError, match="can't be cropped"):
        caches[0].crop(-1)


@MODES
def test_streaming(mode, capsys):
    tokenizer = byte_tokenizer()
    model = small_model(mode, vocab_size=len(tokenizer))
    ids = tokenizer("a tree", return_tensors="pt").input_ids
    expected = tokenizer.decode(generate(model, ids, None)[0, ids.shape[1]:])
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    thread = threading.Thread(target=generate, args=(model, ids, None), kwargs={"streamer": streamer})
    thread.start()
    assert "".join(streamer) == expected
    thread.join()
    generate(model, ids, None, streamer=TextStreamer(tokenizer))
    assert capsys.readouterr().out == f"a tree{expected}\n"


@MODES
def test_prompts_of_embeddings(mode):
    model = small_model(mode)
    ids, mask = ragged_prompts()
    options = {"inputs_embeds": model.get_input_embeddings()(ids), "attention_mask": mask, "max_new_tokens": 9}
    texts = model.generate(do_sample=False, **options)
    assert torch.equal(texts, generate(model, ids, mask, max_new_tokens=9)[:, 13:])


@torch.no_grad()
def test_there_is_one_kind_of_cache():
    ids, mask = ragged_prompts()
    with pytest.raises(ValueError, match="cache_implementation must be None.*'static'"):
        generate(small_model(), ids, mask, cache_implementation="static")
