"""Trains a small Mamba from scratch on plain text, with a tokenizer of its own, in minutes on a CPU.

    python -m grootl.pretrain --text pretraining.txt --output mamba-small
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from datasets import Dataset
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    MambaConfig, MambaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Trainer, TrainingArguments,
    default_data_collator, set_seed)

from .command_line import run
from .configuration import GrootLConfig
from .data import format_prompt
from .modeling import GrootLForCausalLM

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Pretraining:
    """How a small Mamba is trained: in `steps` batches of `batch_size` pieces of `length` tokens.

    AdamW with `learning_rate` after 5% of warm-up, falling as a cosine, weight decay 0.1, gradients clipped at 1.
    """

    vocab_size: int = 2048
    hidden_size: int = 128
    num_hidden_layers: int = 3
    state_size: int = 8
    steps: int = 1000
    batch_size: int = 8
    length: int = 128
    learning_rate: float = 4e-3
    seed: int = 0

    def __post_init__(self):
        for name in ("hidden_size", "num_hidden_layers", "state_size", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.vocab_size < 257:
            raise ValueError(f"vocab_size must be at least 257, the bytes and the end of text, got {self.vocab_size}")
        if self.length < 2:
            raise ValueError(f"length must be at least 2 tokens, got {self.length}")


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens, whose only special token ends texts.

    Any text survives encoding and decoding. It is trained on the prompts of the Alpaca format as well.
    """
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(chain([format_prompt("", ""), format_prompt("", "input")] * 100, texts), vocab_size,
                            special_tokens=[END_OF_TEXT], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT,
                                   clean_up_tokenization_spaces=False)


def pretrain(texts: Sequence[str], output: str | os.PathLike, how: Pretraining = Pretraining()) -> dict[str, float]:
    """Trains a tokenizer and a small Mamba on texts, and saves both as an ordinary Mamba's folder.

    The texts, an end-of-text token in front of each, are cut into pieces. The model is transformers' MambaForCausalLM,
    trained through mode "chain", which is the same function, and faster.

    Returns `parameters`, `tokens` of the texts, `seconds` of training, `tokens_per_second` and `loss`, the mean of the
    last tenth of the steps. Raises ValueError if the texts are fewer tokens than one piece has.
    """
    tokenizer = train_tokenizer(texts, how.vocab_size)
    pieces = _pieces(texts, tokenizer, how.length)
    fields = {"vocab_size": len(tokenizer), "hidden_size": how.hidden_size, "num_hidden_layers": how.num_hidden_layers,
              "state_size": how.state_size, "bos_token_id": tokenizer.bos_token_id,
              "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
    set_seed(how.seed)
    mamba = MambaForCausalLM(MambaConfig(**fields))
    model = GrootLForCausalLM(GrootLConfig(**fields, mode="chain"))
    model.load_state_dict(mamba.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, TrainingArguments(
            folder, max_steps=how.steps, per_device_train_batch_size=how.batch_size, learning_rate=how.learning_rate,
            lr_scheduler_type="cosine", warmup_steps=0.05, weight_decay=0.1, max_grad_norm=1.0, seed=how.seed,
            logging_steps=max(how.steps // 10, 1), save_strategy="no", report_to="none",
            disable_tqdm=True, dataloader_pin_memory=False),
            train_dataset=pieces, data_collator=default_data_collator)
        trained = trainer.train()
    mamba.load_state_dict(model.state_dict())
    mamba.save_pretrained(output)
    tokenizer.save_pretrained(output)
    seconds = trained.metrics["train_runtime"]
    return {"parameters": mamba.num_parameters(), "tokens": len(pieces) * how.length, "seconds": seconds,
            "tokens_per_second": how.steps * how.batch_size * how.length / seconds,
            "loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1]}


def _pieces(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int) -> Dataset:
    tokens = [token for text in tokenizer(list(texts))["input_ids"] for token in (tokenizer.eos_token_id, *text)]
    if len(tokens) < length:
        raise ValueError(f"texts must be at least one piece of {length} tokens, got {len(tokens)}")
    pieces = [tokens[start:start + length] for start in range(0, len(tokens) - length + 1, length)]
    return Dataset.from_dict({"input_ids": pieces, "labels": pieces})


def read_texts(path: str | os.PathLike) -> list[str]:
    """The texts of a file, which empty lines part. Raises FileNotFoundError, or ValueError if it is empty or not text."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        content = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from None
    texts = [text.strip() for text in content.split("\n\n") if text.strip()]
    if not texts:
        raise ValueError(f"{path}: there is no text")
    return texts


def main() -> None:
    defaults = Pretraining()
    parser = argparse.ArgumentParser(prog="python -m grootl.pretrain", description=__doc__.split("\n")[0])
    parser.add_argument("--text", required=True, help="plain text; empty lines part what doesn't belong together")
    parser.add_argument("--output", required=True, help="the model's folder")
    for name, default in vars(defaults).items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"({default})")
    arguments = vars(parser.parse_args())
    text, output = arguments.pop("text"), arguments.pop("output")
    what = pretrain(read_texts(text), output, Pretraining(**arguments))
    print(f"{output}: {what['parameters']:,} parameters, loss {what['loss']:.3f}, "
          f"{what['tokens_per_second']:.0f} tokens/s")


if __name__ == "__main__":
    run(main)
