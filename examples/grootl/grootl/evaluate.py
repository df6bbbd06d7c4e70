"""Evaluates a model with lm-evaluation-harness.

    python -m grootl.evaluate --model FOLDER --tasks grootl_paper
    python -m grootl.evaluate --model FOLDER --tasks grootl_choice grootl_last_word --data FOLDER_OF_THEIR_FILES
"""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import lm_eval
import torch
import yaml
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from .checkpoints import load_model, load_tokenizer
from .command_line import run
from .configuration import MODES, GrootLConfig
from .modeling import GrootLForCausalLM

TASKS = Path(__file__).parent / "tasks"
# Where lm_eval has the paper's tasks: it takes long to look through all of its thousands.
_PAPER = [Path(lm_eval.__file__).parent / "tasks" / name for name in (
    "piqa", "arc", "glue/sst2", "winogrande", "lambada", "race", "openbookqa")]
_BOOTSTRAPS = 1000

_logger = logging.getLogger(__name__)


@register_model("grootl")
class GrootLHarness(HFLM):
    """lm_eval's model for GrootL: each row's context is the context of its own request.

    Requests have a context and a continuation, whose likelihood is asked for. The context is what `context_length`
    counts; where it is empty, and in texts that are predicted from their beginning, there is no prompt, as in a row
    without one in training: all of it is context in mode "causal", none in "original". The latter's trees depend on the
    least context in a batch, so it gets batches of equal contexts: likelihoods don't depend on `batch_size` in any mode
    but for rounding; texts that "original" generates do. One process evaluates.

    Arguments, of the constructor or of lm_eval's `model_args`:
        pretrained: a folder as for `load_model`, or a model.
        tokenizer: a folder, or a tokenizer; by default the one in `pretrained`.
        mode, mixing, window: in place of the folder's.
        batch_size: a number; the largest possible isn't looked for.
        max_length: the most tokens of a row, 2048 by default; more are cut on the left, with a warning.
        device: "cpu" by default.

    Raises what `load_model` raises; ValueError for another batch_size, TypeError for a model of another kind.
    """

    def __init__(self, pretrained: str | os.PathLike | GrootLForCausalLM | PeftModel,
                 tokenizer: str | os.PathLike | PreTrainedTokenizerBase | None = None, mode: str | None = None,
                 mixing: float | None = None, window: int | None = None, batch_size: int | str | None = 1,
                 max_batch_size: None = None, max_length: int | None = None, device: str | None = None):
        if not str(batch_size or 1).isdecimal() or max_batch_size is not None:
            raise ValueError(f"batch_size must be a number, without max_batch_size, got {batch_size!r} and "
                             f"{max_batch_size!r}")
        if isinstance(pretrained, (str, os.PathLike)):
            tokenizer = pretrained if tokenizer is None else tokenizer
            pretrained = load_model(pretrained, mode=mode, mixing=mixing, window=window).to(device or "cpu")
        elif mode is not None or mixing is not None or window is not None:
            raise ValueError("mode, mixing and window are for folders, a model has its own")
        if not isinstance(getattr(pretrained, "config", None), GrootLConfig):
            raise TypeError(f"pretrained must be a folder or a GrootL model, got {type(pretrained).__name__}")
        if isinstance(tokenizer, (str, os.PathLike)):
            tokenizer = load_tokenizer(tokenizer)
        if tokenizer is None:
            raise ValueError("tokenizer must be given with a model")
        super().__init__(pretrained, backend="causal", tokenizer=tokenizer, batch_size=int(batch_size or 1),
                         max_length=max_length)

    def _loglikelihood_tokens(self, requests: Sequence[tuple], disable_tqdm: bool = False,
                              override_bs: int | None = None) -> list[tuple[float, bool]]:
        """The continuations' log-likelihoods, and whether each is what greedy decoding would have given.

        A request is ((context, continuation) or None, tokens of the context, tokens of the continuation).
        """
        rows = [self._row(*request) for request in requests]
        if cut := sum(len(row.tokens) < len(context) + len(continuation)
                      for row, (_, context, continuation) in zip(rows, requests)):
            _logger.warning("%d of %d rows are longer than max_length=%d tokens: their beginnings are cut",
                            cut, len(rows), self.max_length)
        answers: list = [None] * len(rows)
        progress = tqdm(total=len(rows), disable=disable_tqdm, desc="log-likelihoods")
        for batch in self._batches(rows, override_bs or self.batch_size):
            for index, answer in zip(batch, self._answers([rows[index] for index in batch])):
                answers[index] = answer
                if requests[index][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[index][0], answer)
            progress.update(len(batch))
        progress.close()
        return answers

    def _row(self, texts: tuple[str, str] | None, context: list[int], continuation: list[int]) -> _Row:
        tokens = (context + continuation)[-self.max_length - 1:]
        if texts is not None and texts[0]:
            return _Row(tokens, len(continuation), len(tokens) - len(continuation))
        return _Row(tokens, len(continuation), 0 if self.config.mode == "original" else len(tokens) - 1)

    def _batches(self, rows: list[_Row], size: int) -> Iterator[list[int]]:
        """Indices of rows to compute together, the longest first."""
        def context(index: int) -> int:
            return rows[index].context_length if self.config.mode == "original" else 0

        order = sorted(range(len(rows)), key=lambda index: (context(index), -len(rows[index].tokens)))
        for _, group in groupby(order, key=context):
            indices = list(group)
            yield from (indices[start:start + size] for start in range(0, len(indices), size))

    @torch.inference_mode()
    def _answers(self, rows: list[_Row]) -> list[tuple[float, bool]]:
        inputs = [torch.tensor(row.tokens[:-1], device=self.device) for row in rows]
        first = min(len(row.tokens) - 1 - row.asked for row in rows)  # that any row needs logits of
        length = max(map(len, inputs))
        logits = self.model(pad_sequence(inputs, batch_first=True),
                            attention_mask=pad_sequence([torch.ones_like(row) for row in inputs], batch_first=True),
                            context_length=torch.tensor([row.context_length for row in rows], device=self.device),
                            logits_to_keep=length - first).logits
        answers = []
        for row, row_logits in zip(rows, logits):
            end = len(row.tokens) - 1 - first
            likelihoods = row_logits[end - row.asked:end].log_softmax(1)
            asked = torch.tensor(row.tokens[-row.asked:], device=self.device)
            answers.append((likelihoods.gather(1, asked[:, None]).sum().item(),
                            likelihoods.argmax(1).equal(asked)))
        return answers


class _Row(NamedTuple):
    """What the model sees of a request.

    Fields:
        tokens: the context and the continuation.
        asked: how many tokens, the last ones, are the continuation.
        context_length: of the tokens.
    """

    tokens: list[int]
    asked: int
    context_length: int


def evaluate(model: GrootLForCausalLM | PeftModel, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[str], *,
             data: str | os.PathLike | None = None, batch_size: int = 8, max_length: int | None = None,
             limit: int | None = None, num_fewshot: int | None = None) -> dict:
    """The results of lm_eval's tasks, as `lm_eval.simple_evaluate` gives them: `["results"][task]["acc,none"]`.

    Arguments:
        tasks: names of lm_eval's tasks and groups, of "grootl_paper", the seven of the paper, or of those over files of
            one's own: "grootl_choice", "grootl_last_word", "grootl_text". The files in `tasks/` say what is in theirs.
        data: the folder with `choice.jsonl`, `last_word.jsonl` and `text.jsonl`, where these are asked for.
        limit: how many documents of each task.
        num_fewshot: how many examples stand in front of each question, as the task has it by default.

    Raises ValueError for unknown tasks and without `data` where it is needed, FileNotFoundError for a missing file.

    Source: the harness is that of Gao et al., "A framework for few-shot language model evaluation" (2021).
    """
    specifications, manager = _find(tasks, data)
    harness = GrootLHarness(model, tokenizer, batch_size=batch_size, max_length=max_length)
    return lm_eval.simple_evaluate(harness, tasks=specifications, task_manager=manager, num_fewshot=num_fewshot,
                                   limit=limit, bootstrap_iters=_BOOTSTRAPS, log_samples=False)


def _find(tasks: Sequence[str], data: str | os.PathLike | None) -> tuple[list[str | dict], TaskManager]:
    """What simple_evaluate takes for tasks; those over files get the files' places."""
    if not tasks:
        raise ValueError("tasks must name at least one task")
    manager = TaskManager(include_path=[TASKS, *_PAPER], include_defaults=False)
    if not set(tasks).issubset(manager.all_tasks):
        manager = TaskManager(include_path=TASKS)
    unknown = [name for name in tasks if name not in manager.all_tasks]
    if unknown:
        close = [match for name in unknown for match in difflib.get_close_matches(name, manager.all_tasks)]
        raise ValueError(f"tasks must be names that lm_eval or grootl knows, got {', '.join(unknown)}"
                         + (f"; there are {', '.join(close)}" if close else ""))
    own = {task["task"]: task for path in TASKS.glob("*.yaml") for task in [yaml.safe_load(path.read_text())]
           if "dataset_kwargs" in task}
    return [_with_files(own[name], data) if name in own else name for name in tasks], manager


def _with_files(task: dict, data: str | os.PathLike | None) -> dict:
    files = task["dataset_kwargs"]["data_files"]
    if data is None:
        raise ValueError(f"data must name the folder with {', '.join(files.values())} for {task['task']}")
    files = {split: Path(data).resolve() / name for split, name in files.items()}
    for path in files.values():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: {task['task']} reads this file, which is missing")
    return task | {"dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m grootl.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of an ordinary Mamba, a GrootL model or an adapter")
    parser.add_argument("--tasks", required=True, nargs="+", help="grootl_paper, grootl_choice ..., any of lm_eval's")
    parser.add_argument("--data", help="folder of the files of grootl_choice, grootl_last_word and grootl_text")
    parser.add_argument("--mode", choices=MODES, help="in place of the model's own")
    parser.add_argument("--mixing", type=float, help="in place of the model's own")
    parser.add_argument("--window", type=int, help="in place of the model's own")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--max_length", type=int, help="the most tokens of a row (2048)")
    parser.add_argument("--num_fewshot", type=int, help="how many examples stand in front of each question")
    parser.add_argument("--limit", type=int, help="how many documents of each task")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", help="a JSON file for the results")
    arguments = parser.parse_args()
    model = load_model(arguments.model, mode=arguments.mode, mixing=arguments.mixing, window=arguments.window)
    results = evaluate(model.to(arguments.device), load_tokenizer(arguments.model), arguments.tasks,
                       data=arguments.data, batch_size=arguments.batch_size, max_length=arguments.max_length,
                       limit=arguments.limit, num_fewshot=arguments.num_fewshot)
    setting = {name: getattr(model.config, name) for name in ("mode", "mixing", "window")}
    print(f"{arguments.model}: " + ", ".join(f"{name} {value}" for name, value in setting.items()))
    print(make_table(results))
    if arguments.output:
        written = {"model": arguments.model, **setting, "results": results["results"]}
        Path(arguments.output).write_text(json.dumps(written, indent=2))


if __name__ == "__main__":
    run(main)
