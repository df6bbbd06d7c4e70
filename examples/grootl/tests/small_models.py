"""A small ordinary Mamba and a tokenizer of bytes, on disk as a pretrained model would be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).parent.parent
TIMEOUT = 240  # seconds for a command; a busy machine takes one to load the libraries


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, and one for the end of text; there is none for padding, as with many published models."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={"<|endoftext|>": 0} | {byte: 1 + i for i, byte in enumerate(alphabet)},
                                     merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


def save_mamba(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = MambaConfig(vocab_size=257, hidden_size=32, num_hidden_layers=2, state_size=5, bos_token_id=0,
                         eos_token_id=0, pad_token_id=0)
    model = MambaForCausalLM(config)
    with torch.no_grad():  # Fresh Mambas make next to nothing of their states: nobody would see which tree they are on.
        for name, parameter in model.named_parameters():
            if name.endswith(("in_proj.weight", "conv1d.weight", "x_proj.weight", "dt_proj.bias")):
                parameter.mul_(0.5 if name.endswith("bias") else 6)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def save_instructions(path: Path, count: int = 13) -> Path:
    """Prompts and responses of many lengths."""
    entries = [{"instruction": f"Say {'very ' * (i % 4)}{i}.", "input": "x" * (i % 3),
                "output": "yes " * (1 + i * 5 % 7)} for i in range(count)]
    path.write_text(json.dumps(entries))
    return path


def run_module(module: str, *arguments: object, processes: int = 1) -> subprocess.CompletedProcess:
    """Runs a command of the package, as a user would; output and errors are text."""
    return subprocess.run(command_of(module, *arguments, processes=processes), env=environment(), cwd=ROOT,
                          timeout=TIMEOUT, capture_output=True, text=True)


def command_of(module: str, *arguments: object, processes: int = 1) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    return [sys.executable, *launcher, "-m", module, *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
