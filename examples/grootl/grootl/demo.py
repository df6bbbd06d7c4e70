"""A small Mamba from scratch, then LoRA with chain, original and causal trees against no change, on packaged text.

    python -m grootl.demo                    # of Debian's wordnet-base; minutes on two idle cores
    python -m grootl.demo --data FOLDER      # of the folder with data.noun, data.verb, data.adj, data.adv
    python -m grootl.demo --full             # a larger model, more of everything, hours
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median

import datasets
import torch
import transformers
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, set_seed

from .checkpoints import load_model, load_tokenizer
from .command_line import run
from .configuration import MODES
from .corpora import definition_request, read_wordnet, split, write
from .data import IGNORED, Batches, format_prompt, load_instructions
from .evaluate import evaluate
from .finetune import Training, add_lora, train
from .page import differences, scores_table, write_page
from .pretrain import Pretraining, pretrain, read_texts

NO_CHANGE = "no change"


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Fields:
        pretraining: the model, and how it is trained from scratch.
        seeds: of each mode's fine-tuning: of the adapters and of the order of the rows.
        instructions, texts: how many rows of each kind the fine-tuning has.
        batch_size, length, learning_rate, rank: of the fine-tuning.
        questions, held_out_texts: how many of each kind the evaluation has.
        generated: tokens for each prompt, where generation is timed.
    """

    pretraining: Pretraining = Pretraining()
    seeds: int = 3
    instructions: int = 480
    texts: int = 240
    batch_size: int = 8
    length: int = 128
    learning_rate: float = 1e-3
    rank: int = 8
    questions: int = 200
    held_out_texts: int = 40
    generated: int = 64


SIZES = {
    "short": Size(),
    "full": Size(Pretraining(vocab_size=8192, hidden_size=384, num_hidden_layers=8, state_size=16, steps=12000,
                             batch_size=16, learning_rate=2e-3),
                 seeds=5, instructions=16000, texts=8000, batch_size=16, questions=2000, held_out_texts=400),
    "smoke": Size(Pretraining(vocab_size=300, hidden_size=16, num_hidden_layers=1, state_size=2, steps=8, batch_size=2,
                              length=16), seeds=2, instructions=4, texts=2, batch_size=2, length=192, questions=4,
                  held_out_texts=2, generated=4),
}


def demonstrate(size: Size, output: str | os.PathLike, data: str | os.PathLike | None = None,
                say: Callable[[str], None] = print) -> dict:
    """Runs the demo, with all that it makes in the folder `output`, and returns its results.

    They have what was run (`size`, `machine`, `versions`, `text`), `pretraining`, `rows` and `generation`. Each row
    is an evaluation of one model: its `mode`, `trained` (or not), `seed`, its `scores` and, where it was trained, tokens
    a second. Raises what `read_wordnet`, `pretrain` and `train` raise.
    """
    start = time.perf_counter()
    folder = Path(output)
    parts = split(read_wordnet(data))
    write(parts, folder / "data", questions=size.questions, texts=size.held_out_texts)
    say(f"text: {len(parts.pretraining)} synsets to pretrain on, {len(parts.instructions)} to fine-tune on, "
        f"{len(parts.held_out)} held out")
    texts = read_texts(folder / "data" / "pretraining.txt")
    pretraining = pretrain(texts, folder / "mamba", size.pretraining)
    say(f"pretrained: {pretraining['parameters']:,} parameters, loss {pretraining['loss']:.3f}, "
        f"{pretraining['tokens_per_second']:.0f} tokens/s")
    tokenizer = load_tokenizer(folder / "mamba")
    requests = [format_prompt(definition_request(synset)) for synset in parts.held_out if synset.definition]
    rows = []
    # Chain is the model as it is; the others are what the adapters have to start from.
    for mode in MODES:
        model = load_model(folder / "mamba", mode=mode)
        rows.append({"mode": mode, "trained": False, "seed": None,
                     "scores": _scores(model, tokenizer, folder / "data", size.length),
                     "said": _said(model, tokenizer, requests[:3])})
        say(_line(rows[-1]))
    training = _rows(folder / "data" / "instructions.json", texts, tokenizer, size)
    for seed in range(size.seeds):
        for mode in MODES:
            adapter = folder / f"{mode}-{seed}"
            model, speed = _finetuned(folder / "mamba", mode, training, tokenizer, adapter, size, seed)
            rows.append({"mode": mode, "trained": True, "seed": seed, "tokens_per_second": speed,
                         "scores": _scores(model, tokenizer, folder / "data", size.length),
                         "said": _said(model, tokenizer, requests[:3])})
            say(_line(rows[-1]))
    generation = _generation(folder / "mamba", tokenizer, requests, size)
    return {"size": asdict(size), "machine": _machine(),
            "versions": {name: version(name) for name in ("treescan", "torch", "transformers", "peft", "lm_eval")},
            "text": {name: len(part) for name, part in parts._asdict().items()}, "requests": requests[:3],
            "pretraining": pretraining, "rows": rows, "generation": generation,
            "minutes": (time.perf_counter() - start) / 60, "load": os.getloadavg()[2], "cores": os.cpu_count()}


def _rows(instructions: Path, texts: list[str], tokenizer: PreTrainedTokenizerBase, size: Size) -> Dataset:
    """What all modes are fine-tuned on: instructions, and pieces of the pretraining's text, to keep what it taught.

    The first half of a piece is its prompt: in mode "original" a row without one would leave its batch without trees.
    """
    told = load_instructions(instructions, tokenizer, size.length, leave_out=True).rows
    pieces = (tokens[:size.length] for text in texts if len(tokens := tokenizer(text)["input_ids"]) >= size.length // 2)
    raw = Dataset.from_list([{"input_ids": tokens, "attention_mask": [1] * len(tokens),
                              "labels": [IGNORED] * (len(tokens) // 2) + tokens[len(tokens) // 2:]}
                             for tokens in islice(pieces, size.texts)])
    return concatenate_datasets([told.select(range(min(size.instructions, len(told)))), raw])


def _finetuned(folder: Path, mode: str, rows: Dataset, tokenizer: PreTrainedTokenizerBase, output: Path, size: Size,
               seed: int) -> tuple[torch.nn.Module, float]:
    """The model with adapters, and how many tokens a second it was trained on."""
    set_seed(seed)
    model = add_lora(load_model(folder, mode=mode), rank=size.rank, alpha=2 * size.rank)
    how = Training(output_dir=str(output), num_train_epochs=1, per_device_train_batch_size=size.batch_size, seed=seed,
                   learning_rate=size.learning_rate, logging_strategy="no", save_strategy="no", report_to="none",
                   disable_tqdm=True, dataloader_pin_memory=False)
    with _quiet():
        trained = train(model, rows, tokenizer, how)
    return model.eval(), sum(map(len, rows["input_ids"])) / trained.metrics["train_runtime"]


@contextmanager
def _quiet() -> Iterator[None]:
    """What the libraries tell of their progress would bury the results; errors still come through."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def _scores(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, data: Path, length: int) -> dict[str, float]:
    model.eval()
    rows = load_instructions(data / "held_out.json", tokenizer, length, leave_out=True).rows
    with _quiet():
        texts = evaluate(model, tokenizer, ["grootl_text", "grootl_last_word", "grootl_choice"], data=data)["results"]
        told = evaluate(model, tokenizer, ["grootl_choice"], data=data / "instructed")["results"]
    return {
        "response_perplexity": _response_perplexity(model, rows, tokenizer),
        "bits_per_byte": texts["grootl_text"]["bits_per_byte,none"],
        "word_perplexity": texts["grootl_text"]["word_perplexity,none"],
        "choice": 100 * texts["grootl_choice"]["acc_norm,none"],
        "choice_error": 100 * texts["grootl_choice"]["acc_norm_stderr,none"],
        "instructed_choice": 100 * told["grootl_choice"]["acc_norm,none"],
        "last_word": 100 * texts["grootl_last_word"]["acc,none"],
        "last_word_error": 100 * texts["grootl_last_word"]["acc_stderr,none"],
        "last_word_perplexity": texts["grootl_last_word"]["perplexity,none"],
    }


@torch.inference_mode()
def _response_perplexity(model: torch.nn.Module, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> float:
    """Of the tokens that fine-tuning would learn of the rows."""
    total, count = 0.0, 0
    for batch in DataLoader(rows, 8, collate_fn=Batches(tokenizer)):
        learned = (batch["labels"][:, 1:] != IGNORED).sum().item()
        total, count = total + model(**batch).loss.item() * learned, count + learned
    return math.exp(total / count)


@torch.inference_mode()
def _generate(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: list[str], **kwargs) -> Tensor:
    tokenizer.padding_side = "left"
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
    tokens = model.generate(**inputs, do_sample=False, pad_token_id=tokenizer.eos_token_id, **kwargs)
    return tokens[:, inputs["input_ids"].shape[1]:]


def _said(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[str]:
    """What the model answers, greedily, up to 24 tokens."""
    tokens = _generate(model, tokenizer, prompts, max_new_tokens=24)
    return [tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]


def _generation(folder: Path, tokenizer: PreTrainedTokenizerBase, requests: list[str], size: Size) -> list[dict]:
    """Tokens a second of greedy generation for eight ragged prompts, with the cache and without, taken in turns."""
    prompts = [requests[index % len(requests)] for index in range(8)]
    models = {mode: load_model(folder, mode=mode).eval() for mode in MODES}
    seconds: dict = {(mode, cached): [] for mode in MODES for cached in (True, False)}
    for _ in range(3):
        for (mode, cached), taken in seconds.items():
            start = time.perf_counter()
            _generate(models[mode], tokenizer, prompts, max_new_tokens=size.generated, min_new_tokens=size.generated,
                      use_cache=cached)
            taken.append(time.perf_counter() - start)
    return [{"mode": mode, "cached": cached, "tokens_per_second": len(prompts) * size.generated / median(taken)}
            for (mode, cached), taken in seconds.items()]


def _line(row: dict) -> str:
    name = f"{row['mode']}, seed {row['seed']}" if row["trained"] else \
        NO_CHANGE if row["mode"] == "chain" else f"{row['mode']}, not trained"
    scores = row["scores"]
    speed = f", trained at {row['tokens_per_second']:.0f} tokens/s" if row["trained"] else ""
    return (f"{name}: responses' perplexity {scores['response_perplexity']:.1f}, words' {scores['word_perplexity']:.0f}, "
            f"choice {scores['choice']:.1f}%, as an instruction {scores['instructed_choice']:.1f}%, "
            f"last word {scores['last_word']:.1f}%{speed}")


def _machine() -> str:
    try:
        name = next(line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                    if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, {platform.system()}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m grootl.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="the folder with WordNet's files, by default Debian's")
    parser.add_argument("--output", default="demo", help="the folder for models, data and results (demo)")
    parser.add_argument("--docs", help="the folder for grootl.md with its results and plot, as --output by default")
    parser.add_argument("--seeds", type=int, help="of each mode's fine-tuning")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--full", dest="form", action="store_const", const="full", help="larger, more of everything")
    form.add_argument("--smoke", dest="form", action="store_const", const="smoke", help="as little as runs")
    arguments = parser.parse_args()
    size = SIZES[arguments.form or "short"]
    if arguments.seeds is not None:
        if arguments.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {arguments.seeds}")
        size = replace(size, seeds=arguments.seeds)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    results = demonstrate(size, arguments.output, arguments.data)
    docs = Path(arguments.docs or arguments.output)
    (docs / "grootl").mkdir(parents=True, exist_ok=True)
    (docs / "grootl" / "demo.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{scores_table(results)}\n\n{differences(results)}\n\n{write_page(docs)} has all of it")


if __name__ == "__main__":
    run(main)
