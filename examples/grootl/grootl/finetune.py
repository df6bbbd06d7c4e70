"""Trains LoRA adapters on instructions.

    python -m grootl.finetune --model mamba-130m-hf --data alpaca.json --mode causal --output runs/x

Takes all arguments of transformers' Trainer as well (--learning_rate, --bf16, --gradient_checkpointing, --deepspeed
deepspeed.json ...); `torchrun --nproc_per_node 2 -m grootl.finetune ...` trains with several processes. What DeepSpeed
does with that file was not run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import HfArgumentParser, PreTrainedTokenizerBase, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from .checkpoints import load_config, load_model, load_tokenizer
from .command_line import run
from .configuration import GrootLConfig
from .data import Batches, load_instructions
from .modeling import GrootLForCausalLM

# What peft's users of Mamba take, and so far as is known the published runs; their code isn't at hand to check it.
TARGETS = ("embeddings", "in_proj", "x_proj", "out_proj")


@dataclass
class FinetuneArguments:
    """What is trained on what; how is TrainingArguments' matter."""

    model: str = field(metadata={"help": "folder of an ordinary Mamba or a GrootL model, with its tokenizer"})
    data: str = field(metadata={"help": "instructions in the Alpaca format, a JSON list or JSON lines"})
    mode: str | None = field(default=None, metadata={"help": "chain, original or causal; by default the model's"})
    mixing: float | None = field(default=None, metadata={"help": "how much of the tree's scan is added"})
    window: int | None = field(default=None, metadata={"help": "how far the trees' edges reach"})
    max_length: int = field(default=512, metadata={"help": "the most tokens of a row; longer responses are cut"})
    leave_out: bool = field(default=False, metadata={"help": "go on without the entries that can't be used"})
    rank: int = field(default=8, metadata={"help": "of the adapters"})
    alpha: int = field(default=16, metadata={"help": "the adapters are scaled with alpha / rank"})
    dropout: float = field(default=0.0, metadata={"help": "in front of the adapters"})
    targets: list[str] = field(default_factory=lambda: list(TARGETS), metadata={"help": "names of layers to adapt"})
    resume: bool = field(default=False, metadata={"help": "go on from the newest complete checkpoint in the output"})


@dataclass
class Training(TrainingArguments):
    """transformers' TrainingArguments with defaults for adapters on a Mamba."""

    output_dir: str = field(metadata={"help": "the adapter's folder", "aliases": ["--output"]})
    learning_rate: float = field(default=2e-4, metadata={"help": "AdamW's; 2e-3 spoiled small models"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "how the learning rate falls"})
    warmup_steps: float = field(default=0.03, metadata={"help": "a number of steps, or below 1 a part of all"})
    logging_steps: float = field(default=10, metadata={"help": "how often the loss is logged"})
    # treescan has no other backend yet. Without it, accelerate would also make nothing of several processes on CPUs.
    use_cpu: bool = field(default=True, metadata={"help": "compute on the CPU"})
    # Every adapter is used in every step, so there is no need to search for those that aren't.
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "see TrainingArguments"})
    # An incomplete batch can't be shared out: accelerate would fill it up with rows that were in the epoch before.
    dataloader_drop_last: bool = field(default=True, metadata={"help": "leave an incomplete batch to other epochs"})
    # A loss that isn't finite is to be seen.
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "see TrainingArguments"})


def add_lora(model: GrootLForCausalLM, rank: int = 8, alpha: int = 16, dropout: float = 0.0,
             targets: Sequence[str] = TARGETS) -> PeftModel:
    """The model with LoRA adapters on all layers of the given names; nothing else is trained any more.

        W x + alpha / rank · B A x,    A (rank, in),  B (out, rank), 0 at first

    Raises ValueError for a name that no layer has.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
    """
    layers = {name.rpartition(".")[2] for name, module in model.named_modules()
              if isinstance(module, (nn.Linear, nn.Conv1d, nn.Embedding))}
    if not targets or not layers.issuperset(targets):
        missing = ", ".join(target for target in targets if target not in layers) or "none at all"
        raise ValueError(f"targets must be names of layers, of {', '.join(sorted(layers))}; got {missing}")
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none",
                                            target_modules=list(targets), task_type="CAUSAL_LM"))


def train(model: PeftModel, rows: Dataset, tokenizer: PreTrainedTokenizerBase, arguments: TrainingArguments, *,
          resume: bool = False) -> TrainOutput:
    """Trains the model's adapters on rows, and saves them with their configuration in `arguments.output_dir`.

    The loss is the mean over the learned tokens of a whole step, whatever rows, processes and accumulated batches they
    are in, so that one process with batches of four trains as two with batches of two; without dropout, which is drawn
    in each process. Mode "original" builds the trees of a batch for the least prompt in it, and does depend on who has
    which rows.

    Arguments:
        rows: columns `input_ids`, `attention_mask` and `labels`, as of `load_instructions`.
        resume: go on from the newest complete checkpoint in the output folder; without one, training starts. Models,
            optimizers, orders of rows and random numbers go on where they were.

    Raises ValueError for fewer rows than a batch of all processes has, if there are checkpoints and `resume` isn't set,
    or if they are of another mode, mixing or window.
    """
    together = arguments.train_batch_size * arguments.world_size
    if len(rows) < together:
        raise ValueError(f"rows must fill the batches of all processes, {arguments.train_batch_size} x "
                         f"{arguments.world_size}; got {len(rows)}")
    checkpoint = _newest_checkpoint(Path(arguments.output_dir), model.config)
    if checkpoint is not None and not resume:
        raise ValueError(f"{arguments.output_dir}: holds {checkpoint.name}; resume goes on from it, or choose another "
                         "output")
    if resume and arguments.should_log:
        print(f"resuming from {checkpoint}" if checkpoint else f"nothing to resume in {arguments.output_dir}, starting")
    trainer = _Trainer(model, arguments, Batches(tokenizer), rows, processing_class=tokenizer)
    output = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.save_model()
    trainer.save_state()
    return output


class _Trainer(Trainer):
    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:  # An adapter alone doesn't know the mode that it was trained in.
            self.model.config.save_pretrained(output_dir or self.args.output_dir)


def _newest_checkpoint(output: Path, config: GrootLConfig) -> Path | None:
    """The newest checkpoint that was written to its end: a process may be killed while it writes one."""
    complete = [folder for folder in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _is_complete(folder)]
    if not complete:
        return None
    newest = max(complete, key=lambda folder: int(folder.name.rpartition("-")[2]))
    saved = load_config(newest)
    for name in ("mode", "mixing", "window"):
        if getattr(saved, name) != getattr(config, name):
            raise ValueError(f"{newest}: was trained with {name} {getattr(saved, name)!r}, which can't go on with "
                             f"{getattr(config, name)!r}")
    return newest


def _is_complete(checkpoint: Path) -> bool:
    """The trainer's state is written last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True


def finetune(arguments: FinetuneArguments, training: Training) -> TrainOutput:
    """What the command does. Raises what `load_model`, `load_instructions`, `add_lora` and `train` raise."""
    model = load_model(arguments.model, mode=arguments.mode, mixing=arguments.mixing, window=arguments.window)
    tokenizer = load_tokenizer(arguments.model)
    instructions = load_instructions(arguments.data, tokenizer, arguments.max_length, leave_out=arguments.leave_out)
    set_seed(training.seed)
    model = add_lora(model, arguments.rank, arguments.alpha, arguments.dropout, arguments.targets)
    if training.should_log:
        config, (trained, of) = model.config, model.get_nb_trainable_parameters()
        print(f"{arguments.model}: mode {config.mode}, mixing {config.mixing}, window {config.window}; "
              f"{trained:,} of {of:,} parameters are trained")
        print(f"{arguments.data}: {instructions}")
        left = len(instructions.rows) % (training.train_batch_size * training.world_size)
        if left and training.dataloader_drop_last:
            print(f"{left} rows, others in each epoch, are too few for a batch and left out of it", flush=True)
    return train(model, instructions.rows, tokenizer, training, resume=arguments.resume)


def main() -> None:
    parser = HfArgumentParser((FinetuneArguments, Training), prog="python -m grootl.finetune",
                              description=__doc__.split("\n")[0])
    arguments, training = parser.parse_args_into_dataclasses()
    output = finetune(arguments, training)
    if training.should_log:
        print(f"{training.output_dir}: {output.global_step} steps, mean loss {output.training_loss:.4f}")


if __name__ == "__main__":
    run(main)
