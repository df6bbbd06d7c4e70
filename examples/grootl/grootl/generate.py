"""Goes on with a text, and prints it as it comes.

    python -m grootl.generate runs/x --instruction "Name three trees." --temperature 0.7
"""

from __future__ import annotations

import argparse

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, TextStreamer, set_seed

from .checkpoints import load_model, load_tokenizer
from .command_line import run
from .configuration import MODES
from .data import format_prompt
from .modeling import GrootLForCausalLM


def stream(model: GrootLForCausalLM | PeftModel, tokenizer: PreTrainedTokenizerBase, prompt: str, *,
           max_new_tokens: int = 200, max_prompt: int = 2048, temperature: float = 0.0, top_p: float = 1.0,
           seed: int = 0) -> str:
    """Prints how the model goes on with a prompt, token by token, and returns it.

    Arguments:
        prompt: the context of the trees; at least one token, at most `max_prompt`.
        max_new_tokens: after how many tokens to stop where the model doesn't end the text.
        temperature: 0 takes the likeliest token, more draws them, with probabilities in proportion to
            exp(logit / temperature) among those that make up `top_p` of them.
        seed: of the draws.

    Raises ValueError for a prompt that is empty or too long, a number out of range, or a tokenizer with more tokens
    than the model.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be finite and at least 0, got {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be more than 0 and at most 1, got {top_p}")
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    if not 1 <= ids.shape[1] <= max_prompt:
        raise ValueError(f"prompt must have 1 to {max_prompt} tokens, got {ids.shape[1]}")
    if ids.max() >= base.config.vocab_size:
        raise ValueError(f"the tokenizer isn't the model's: it gives the prompt token {ids.max()}, and the model has "
                         f"{base.config.vocab_size}")
    set_seed(seed)
    how = {"do_sample": False}
    if temperature > 0:
        how = {"do_sample": True, "temperature": float(temperature), "top_p": float(top_p), "top_k": 0}
    out = base.eval().generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens,
                               eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
                               streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True), **how)
    return tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m grootl.generate", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of an ordinary Mamba, a GrootL model or an adapter, with its tokenizer")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--prompt", help="the text to go on with")
    given.add_argument("--instruction", help="an instruction, to be put into the format of the instruction data")
    parser.add_argument("--mode", choices=MODES, help="as the model has it by default")
    parser.add_argument("--mixing", type=float, help="how much of the tree's scan is added")
    parser.add_argument("--window", type=int, help="how far the trees' edges reach")
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--max-prompt", type=int, default=2048, help="the most tokens of a prompt")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tokenizer = load_tokenizer(arguments.model)
    model = load_model(arguments.model, mode=arguments.mode, mixing=arguments.mixing, window=arguments.window)
    prompt = arguments.prompt if arguments.instruction is None else format_prompt(arguments.instruction)
    stream(model, tokenizer, prompt, max_new_tokens=arguments.max_new_tokens, max_prompt=arguments.max_prompt,
           temperature=arguments.temperature, top_p=arguments.top_p, seed=arguments.seed)


if __name__ == "__main__":
    run(main)
