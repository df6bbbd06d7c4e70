"""Makes an adapter and the model below it one model: `python -m grootl.merge --adapter runs/x --output merged`."""

from __future__ import annotations

import argparse
from pathlib import Path

from peft import PeftModel
from torch import nn

from .checkpoints import load_model, load_tokenizer
from .command_line import run
from .modeling import GrootLForCausalLM


def merge(model: PeftModel) -> GrootLForCausalLM:
    """The model with its adapter's products added to its weights; `model` is used up.

        W + alpha / rank · B A

    A Mamba's head has the weights of its embeddings. An adapter on the embeddings is only on them, so where there is
    one the merged model's head gets weights of its own, the embeddings' as they were, and `tie_word_embeddings` is
    False.

    Raises ValueError if a weight wouldn't be finite.
    """
    base = model.get_base_model()
    if base.get_output_embeddings().weight is base.get_input_embeddings().weight and hasattr(
            base.get_input_embeddings(), "lora_embedding_A"):
        base.lm_head.weight = nn.Parameter(base.lm_head.weight.detach().clone())
        base.config.tie_word_embeddings = False
    return model.merge_and_unload(safe_merge=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m grootl.merge", description=__doc__.split(":")[0] + ".")
    parser.add_argument("--adapter", required=True, help="what grootl.finetune wrote, or a checkpoint of it")
    parser.add_argument("--output", required=True, help="the folder of the merged model; must not exist, or be empty")
    arguments = parser.parse_args()
    output = Path(arguments.output)
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output}: holds files already")
    model = load_model(arguments.adapter)
    if not isinstance(model, PeftModel):
        raise ValueError(f"{arguments.adapter}: holds a model, not an adapter")
    tokenizer = load_tokenizer(arguments.adapter)
    merged = merge(model)
    merged.save_pretrained(output)
    tokenizer.save_pretrained(output)
    print(f"{output}: mode {merged.config.mode}, mixing {merged.config.mixing}, window {merged.config.window}, "
          f"{merged.num_parameters():,} parameters")


if __name__ == "__main__":
    run(main)
