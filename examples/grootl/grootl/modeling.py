"""The models: transformers' Mamba with `GrootLMixer` in its blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.mamba.modeling_mamba import (
    MambaBlock, MambaCausalLMOutput, MambaForCausalLM, MambaModel, MambaOutput, MambaRMSNorm)

from .cache import GrootLCache
from .configuration import GrootLConfig
from .mixer import GrootLMixer, Sequences
from .packing import Packing

# Of the arguments that any caller may give, those for the loss.
_LOSS_ARGUMENTS = ("num_items_in_batch", "ignore_index", "shift_labels")


def _refuse(arguments: dict, kind: type) -> None:
    """All that is left over, but for wishes for what there is none of."""
    unknown = [name for name, value in arguments.items() if not (name == "output_attentions" and not value)]
    if unknown:
        raise TypeError(f"{kind.__name__}.forward got unexpected arguments: {', '.join(unknown)}")


class GrootLBlock(MambaBlock):
    """Norm, mixer and residual, as in Mamba."""

    def __init__(self, config: GrootLConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.mixer = GrootLMixer(config, layer_idx, initialize_mixer_weights=False)

    def forward(self, hidden_states: Tensor, sequences: Sequences, cache_params=None) -> Tensor:
        layer_cache = None if cache_params is None else cache_params.layers[self.layer_idx]
        mixed = self.mixer(self.norm(hidden_states.to(self.norm.weight.dtype)), sequences, layer_cache)
        return (hidden_states.float() if self.residual_in_fp32 else hidden_states) + mixed


class GrootLModel(MambaModel):
    """Embeddings, blocks and a last norm: the model below `GrootLForCausalLM`, which says what the arguments are.

    >>> model = GrootLModel(GrootLConfig(hidden_size=16, num_hidden_layers=1, vocab_size=9))
    >>> model(torch.tensor([[1, 2, 3]])).last_hidden_state.shape
    torch.Size([1, 3, 16])
    """

    config: GrootLConfig
    config_class = GrootLConfig
    _no_split_modules = ["GrootLBlock", "GrootLMixer"]

    def __init__(self, config: GrootLConfig):
        super(MambaModel, self).__init__(config)  # not MambaModel's own, which would make every layer twice
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(GrootLBlock(config, index) for index in range(config.num_hidden_layers))
        self.norm_f = MambaRMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
                inputs_embeds: Tensor | None = None, context_length: int | Tensor | None = None,
                cache_params: GrootLCache | None = None, use_cache: bool | None = None,
                output_hidden_states: bool | None = None, return_dict: bool | None = None,
                position_ids: Tensor | None = None, seq_idx: Tensor | None = None, cu_seq_lens_q: Tensor | None = None,
                cu_seq_lens_k: Tensor | None = None, max_length_q: int | None = None, max_length_k: int | None = None,
                **kwargs) -> MambaOutput | tuple:
        _refuse(kwargs, type(self))
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        if inputs_embeds is None:
            inputs_embeds = self.embeddings(input_ids)
        rows = inputs_embeds.shape[:2]
        packing = _packing(rows, attention_mask, cache_params, position_ids, seq_idx, cu_seq_lens_q, cu_seq_lens_k)
        if packing is not None:
            if cache_params is not None or use_cache:
                raise ValueError("packed samples can't be cached: give them row by row to generate from them")
            inputs_embeds, attention_mask = packing.unpack(inputs_embeds), packing.is_token
        batch, length = inputs_embeds.shape[:2]
        if cache_params is not None and not isinstance(cache_params, GrootLCache):
            raise TypeError(f"cache_params must be a GrootLCache, got {type(cache_params).__name__}")
        if cache_params is None and use_cache and not (self.gradient_checkpointing and self.training):
            cache_params = GrootLCache(self.config)
        is_token = _is_token(attention_mask, batch, length, cache_params)
        if is_token is not None:
            # Gradients of the norms' weights sum over padding as well. What is finite there stays, for Mamba's logits.
            inputs_embeds = inputs_embeds.masked_fill(~is_token.unsqueeze(2) & ~inputs_embeds.isfinite(), 0)
        if cache_params is not None and cache_params.is_filled:
            context_length = None  # the states know it
        elif context_length is not None:
            context_length = _checked_context(context_length, batch, length, inputs_embeds.device)
        elif self.config.mode == "original" and self.config.mixing != 0:
            raise ValueError("mode 'original' needs context_length, or labels to tell it by: inside the context a token "
                             "sees later ones, so the context must not be taken for granted")
        sequences = Sequences.of(length, is_token, context_length, inputs_embeds.device)
        hidden_states, between = inputs_embeds, []
        for block in self.layers:
            hidden_states = block(hidden_states, sequences, cache_params=cache_params)
            between.append(hidden_states)
        hidden_states = self.norm_f(hidden_states)
        if packing is not None:
            hidden_states, *between = (packing.pack(states, *rows) for states in (hidden_states, *between))
        if cache_params is not None:
            cache_params.positions += length
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        output = MambaOutput(hidden_states, cache_params, (*between, hidden_states) if output_hidden_states else None)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


def _packing(rows: tuple[int, int], attention_mask: Tensor | None, cache: GrootLCache | None,
             *told: Tensor | None) -> Packing | None:
    if all(argument is None for argument in told):
        return None
    return Packing.of(*rows, _is_token(attention_mask, *rows, cache), *told)


def _is_token(attention_mask: Tensor | None, batch: int, length: int, cache: GrootLCache | None) -> Tensor | None:
    """(B, L) bool, False for padding, or None where there is none."""
    if attention_mask is None:
        return None
    behind = cache is not None and cache.is_filled
    if attention_mask.ndim != 2 or attention_mask.shape[0] != batch or (
            attention_mask.shape[1] < length if behind else attention_mask.shape[1] != length):
        raise ValueError(f"attention_mask must have shape (B, L) = {(batch, length)}, got "
                         f"{tuple(attention_mask.shape)}")
    is_token = attention_mask[:, -length:].bool()
    if torch.compiler.is_compiling():
        return is_token
    if not ((attention_mask == 0) | (attention_mask == 1)).all():
        raise ValueError(f"attention_mask must hold 0 and 1, got {attention_mask.unique().tolist()}")
    if is_token.all():
        return None
    if behind:
        raise ValueError("attention_mask must be 1 for all tokens behind cached ones: padding belongs to the left of a "
                         "prompt")
    return is_token


def _checked_context(context_length: int | Tensor, batch: int, length: int, device: torch.device) -> Tensor:
    """(B,) context lengths, each in [0, L]."""
    contexts = torch.as_tensor(context_length, device=device)
    if contexts.is_floating_point() or contexts.dtype == torch.bool or contexts.shape not in ((), (batch,)):
        raise ValueError(f"context_length must be an int or an integer tensor of shape (B,) = ({batch},), got "
                         f"{contexts.dtype} of shape {tuple(contexts.shape)}")
    if not torch.compiler.is_compiling() and not ((contexts >= 0) & (contexts <= length)).all():
        raise ValueError(f"context_length must be in [0, L] = [0, {length}], got {contexts.tolist()}")
    return contexts.expand(batch)


class GrootLForCausalLM(MambaForCausalLM):
    """A Mamba language model whose scans run along trees of tokens as well, as the configuration's `mode` says.

    Its weights have the names and shapes of transformers' Mamba: `from_pretrained(folder, mode=..., mixing=...,
    window=...)` takes the folder of an ordinary Mamba or of a GrootL model, and AutoModelForCausalLM that of a model
    saved as GrootL.

    Arguments of the model, beside those of MambaForCausalLM:

    - context_length: how many tokens of a row are its prompt, without padding: an int, or (B,) integers, in [0, L].
      In mode "causal" the tokens of the prompt choose whom they hang on, and later ones hang on the token before them.
      In "original" the tree is that of the prompt, the least of the batch, and a token of the prompt sees later ones.
      None with labels: the tokens before a row's first label; a row that begins with a label is all context in
      "causal", and has none in "original". None without labels: all tokens in "causal"; an error in "original". In
      `generate`, the prompts, unless it is given; None then lets the generated tokens choose too, in "causal".
    - attention_mask: (B, L), 0 for padding, which may be on either side; `generate` takes it on the left.
    - use_cache: whether to make a `GrootLCache`; False unless asked for, as `generate` does.
    - cache_params: that of the tokens before, which has their contexts. transformers calls it cache from 5.24 on; either will do.
    - position_ids, seq_idx, cu_seq_lens_q and cu_seq_lens_k, as collators for training without padding make them: a row
      then holds several samples, each of which gets the logits that it gets alone. Samples begin where positions don't
      go on by one, where numbers change, or at these places of the flattened rows; what is given must agree.
      context_length is then for samples, one after the other. With labels, a sample's first one isn't looked at, since
      collators take it away: nobody predicts it. max_length_q and max_length_k may come along.
    - num_items_in_batch, ignore_index, shift_labels: for the loss, as for every model of transformers.

    Behind a cache logits are those without one to rounding, and those of a prompt that fills it to the bit. In mode
    "causal" no later token changes a logit by a bit, be it in training, prefill or decoding. Deterministic.

    Raises ValueError for a context out of range or of another shape, for padding behind cached tokens, packed samples with
    a cache, and for mode "original" where nothing tells the context; TypeError for an argument that isn't here. O(B L D (N + window)) in time beside the matrix products; no states in
    memory.

    >>> model = GrootLForCausalLM(GrootLConfig(hidden_size=16, num_hidden_layers=1, vocab_size=9))
    >>> model(torch.tensor([[1, 2, 3]]), context_length=2).logits.shape
    torch.Size([1, 3, 9])

    Source: Xiao et al., "GrootVL: Tree Topology is All You Need in State Space Model", section 3.3; Gu and Dao, "Mamba:
    Linear-Time Sequence Modeling with Selective State Spaces", section 3.
    """

    config: GrootLConfig
    config_class = GrootLConfig
    _no_split_modules = ["GrootLBlock", "GrootLMixer"]

    def __init__(self, config: GrootLConfig):
        super(MambaForCausalLM, self).__init__(config)
        self.backbone = GrootLModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
                inputs_embeds: Tensor | None = None, context_length: int | Tensor | None = None,
                labels: Tensor | None = None, cache_params: GrootLCache | None = None, use_cache: bool | None = None,
                output_hidden_states: bool | None = None, return_dict: bool | None = None,
                logits_to_keep: int | Tensor = 0, position_ids: Tensor | None = None, seq_idx: Tensor | None = None,
                cu_seq_lens_q: Tensor | None = None, cu_seq_lens_k: Tensor | None = None,
                max_length_q: int | None = None, max_length_k: int | None = None,
                cache: GrootLCache | None = None, **kwargs) -> MambaCausalLMOutput | tuple:
        cache_params = cache if cache_params is None else cache_params
        for_loss = {name: kwargs.pop(name) for name in _LOSS_ARGUMENTS if name in kwargs}
        _refuse(kwargs, type(self))
        told = position_ids, seq_idx, cu_seq_lens_q, cu_seq_lens_k
        if context_length is None and labels is not None:
            packing = _packing(labels.shape, attention_mask, cache_params, *told)
            if packing is None:
                context_length = self._context_of_labels(labels, attention_mask)
            else:
                of_samples = packing.unpack(labels).masked_fill(~packing.is_token, -100)
                of_samples = torch.cat((of_samples[:, 1:2], of_samples[:, 1:]), 1)
                context_length = self._context_of_labels(of_samples, packing.is_token)
        output = self.backbone(input_ids, attention_mask, inputs_embeds, context_length, cache_params=cache_params,
                               use_cache=use_cache, output_hidden_states=output_hidden_states, return_dict=True,
                               **dict(zip(("position_ids", "seq_idx", "cu_seq_lens_q", "cu_seq_lens_k"), told)))
        hidden_states = slice_logits_to_keep(output.last_hidden_state, logits_to_keep)
        logits = self.lm_head(hidden_states.to(self.lm_head.weight.dtype)).float()
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **for_loss)
        output = MambaCausalLMOutput(loss, logits, output.cache_params, output.hidden_states)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _context_of_labels(self, labels: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(B,) how many tokens each row begins with that have no label: its prompt, without padding.

        A row without a prompt is all context in mode "causal". In "original" it has none: its tokens would see the
        ones that they are to predict.
        """
        is_token = torch.ones_like(labels, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        before_labels = (~is_token | (labels == -100)).int().cumprod(1).bool()
        prompt = (before_labels & is_token).sum(1)
        return prompt if self.config.mode == "original" else prompt.masked_fill(prompt == 0, labels.shape[1])

    # ---- Hooks of transformers' generate() ----

    def _expand_inputs_for_generation(self, expand_size: int = 1, is_encoder_decoder: bool = False,
                                      input_ids: Tensor | None = None, **model_kwargs):
        # The prompts are the contexts, as in training. An explicit None lets the generated tokens choose as well.
        if "context_length" not in model_kwargs:
            prompts = model_kwargs.get("inputs_embeds", input_ids)
            mask = model_kwargs.get("attention_mask")
            model_kwargs["context_length"] = prompts.shape[1] if mask is None else mask.sum(1)
        return super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, generation_mode, batch_size,
                                      max_cache_length) -> None:
        if generation_config.cache_implementation is not None:
            raise ValueError("cache_implementation must be None, a GrootL model has one kind of cache, got "
                             f"{generation_config.cache_implementation!r}")
        if generation_config.use_cache and all(model_kwargs.get(name) is None for name in ("cache", "cache_params")):
            model_kwargs["cache_params"] = GrootLCache(self.config)

    def prepare_inputs_for_generation(self, input_ids: Tensor, next_sequence_length: int | None = None,
                                      inputs_embeds: Tensor | None = None, cache_params: GrootLCache | None = None,
                                      is_first_iteration: bool = False, cache: GrootLCache | None = None, **kwargs):
        cache_params = cache if cache_params is None else cache_params
        if is_first_iteration and cache_params is not None and cache_params.is_filled:
            given = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]
            next_sequence_length = given - cache_params.positions
            if next_sequence_length < 1:
                raise ValueError(f"the prompt must have tokens behind the {cache_params.positions} in the cache, got "
                                 f"{given} in all")
        return super().prepare_inputs_for_generation(
            input_ids, next_sequence_length=next_sequence_length, inputs_embeds=inputs_embeds,
            cache_params=cache_params, is_first_iteration=is_first_iteration, **kwargs)


AutoModel.register(GrootLConfig, GrootLModel)
AutoModelForCausalLM.register(GrootLConfig, GrootLForCausalLM)
