"""The models: transformers' Mamba with `GrootLMixer` in its blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.mamba.modeling_mamba import (
    MambaBlock, MambaCausalLMOutput, MambaForCausalLM, MambaModel, MambaOutput, MambaRMSNorm)

from .configuration import GrootLConfig
from .mixer import GrootLMixer, Sequences


class GrootLBlock(MambaBlock):
    """Norm, mixer and residual, as in Mamba."""

    def __init__(self, config: GrootLConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.mixer = GrootLMixer(config, layer_idx, initialize_mixer_weights=False)

    def forward(self, hidden_states: Tensor, sequences: Sequences, cache_params=None) -> Tensor:
        mixed = self.mixer(self.norm(hidden_states.to(self.norm.weight.dtype)), sequences, cache_params)
        return (hidden_states.float() if self.residual_in_fp32 else hidden_states) + mixed


class GrootLModel(MambaModel):
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

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, context_length=None, cache_params=None,
                use_cache=None, output_hidden_states=None, return_dict=None, **kwargs):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        if inputs_embeds is None:
            inputs_embeds = self.embeddings(input_ids)
        batch, length = inputs_embeds.shape[:2]
        is_token = None if attention_mask is None else attention_mask.bool()
        sequences = Sequences.of(length, is_token, context_length, inputs_embeds.device)
        hidden_states, between = inputs_embeds, []
        for block in self.layers:
            hidden_states = block(hidden_states, sequences, cache_params=cache_params)
            between.append(hidden_states)
        hidden_states = self.norm_f(hidden_states)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        output = MambaOutput(hidden_states, cache_params, (*between, hidden_states) if output_hidden_states else None)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class GrootLForCausalLM(MambaForCausalLM):
    config: GrootLConfig
    config_class = GrootLConfig
    _no_split_modules = ["GrootLBlock", "GrootLMixer"]

    def __init__(self, config: GrootLConfig):
        super(MambaForCausalLM, self).__init__(config)
        self.backbone = GrootLModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, context_length=None, labels=None,
                cache_params=None, use_cache=None, output_hidden_states=None, return_dict=None,
                logits_to_keep: int | Tensor = 0, **kwargs):
        output = self.backbone(input_ids, attention_mask, inputs_embeds, context_length, cache_params=cache_params,
                               use_cache=use_cache, output_hidden_states=output_hidden_states, return_dict=True)
        hidden_states = slice_logits_to_keep(output.last_hidden_state, logits_to_keep)
        logits = self.lm_head(hidden_states.to(self.lm_head.weight.dtype)).float()
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        output = MambaCausalLMOutput(loss, logits, output.cache_params, output.hidden_states)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


AutoModel.register(GrootLConfig, GrootLModel)
AutoModelForCausalLM.register(GrootLConfig, GrootLForCausalLM)
