"""Instruction data in the Alpaca format: prompts, responses, and the rows that a model is trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase

IGNORED = -100  # the label of tokens that the loss leaves out

_WITH_INPUT = ("Below is an instruction that describes a task, paired with an input that provides further context. "
               "Write a response that appropriately completes the request.\n\n"
               "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n")
_WITHOUT_INPUT = ("Below is an instruction that describes a task. Write a response that appropriately completes the "
                  "request.\n\n"
                  "### Instruction:\n{instruction}\n\n### Response:\n")


def format_prompt(instruction: str, input: str = "") -> str:
    """The prompt of the Alpaca format, up to where the response begins.

    >>> format_prompt("Name a tree.").splitlines()[-1]
    '### Response:'
    """
    return (_WITH_INPUT if input else _WITHOUT_INPUT).format(instruction=instruction, input=input)


@dataclass
class InstructionRows:
    """What became of a file of instructions.

    Fields:
        rows: a datasets.Dataset with the columns `input_ids`, `attention_mask` and `labels` (-100 on the prompt).
        entries: how many entries the file has.
        shortened: for each entry whose response was cut at the limit, how long it would have been.
        left_out: for each entry that became no row, why.
    """

    rows: Dataset
    entries: int
    shortened: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (f"{len(self.rows)} rows of {self.entries} entries, {sum(map(len, self.rows['input_ids']))} tokens; "
                f"{_counted(self.shortened, 'response cut at the limit', 'responses cut at the limit')}; "
                f"{_counted(self.left_out, 'entry left out', 'entries left out')}")


def load_instructions(path: str | Path, tokenizer: PreTrainedTokenizerBase, max_length: int = 512, *,
                      leave_out: bool = False) -> InstructionRows:
    """The rows that a model learns the instructions of a file from: prompt, response, end of text.

    The prompt has the label -100; the response, tokenised on its own, and the end-of-text token behind it are learned.
    A row of more than `max_length` tokens loses the end of its response, end of text included, which is counted.

    Arguments:
        path: a JSON list or JSON lines of {"instruction": str, "input": str, "output": str}; `input` may be missing.
        tokenizer: needs an eos_token.
        max_length: the most tokens of a row, at least 2.
        leave_out: go on without the entries that can't be used (the published Alpaca data are said to have some with an
            empty output): a line that isn't JSON, a missing field or one that isn't text, an empty instruction or
            output, a prompt that leaves no room for a response. They are in `left_out`, by name.

    Raises FileNotFoundError without the file; ValueError for a list that isn't JSON, for a file without usable entries,
    and, unless `leave_out`, for entries that can't be used, naming them.

    Source: the format is that of Taori et al., "Stanford Alpaca: An Instruction-following LLaMA Model" (2023).
    """
    if max_length < 2:
        raise ValueError(f"max_length must be at least 2, a token of prompt and one of response, got {max_length}")
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer must have an eos_token, which ends a response")
    entries = _read(Path(path))
    faults = {number: fault for number, entry in enumerate(entries, 1) if (fault := _fault(entry))}
    usable = [number for number in range(1, len(entries) + 1) if number not in faults]
    prompts, responses = [], []
    if usable:
        texts = [entries[number - 1] for number in usable]
        prompts = tokenizer([format_prompt(text["instruction"], text.get("input", "")) for text in texts])["input_ids"]
        responses = tokenizer([text["output"] for text in texts], add_special_tokens=False)["input_ids"]
    rows, shortened = [], []
    for number, prompt, response in zip(usable, prompts, responses):
        if len(prompt) >= max_length:
            faults[number] = (f"the prompt has {len(prompt)} tokens, which leaves no room for a response within "
                              f"max_length={max_length}")
            continue
        response = [*response, tokenizer.eos_token_id]
        length = len(prompt) + len(response)
        if length > max_length:
            shortened.append(f"{entries[number - 1].where}: {length} tokens, {max_length} kept")
        tokens = (prompt + response)[:max_length]
        labels = ([IGNORED] * len(prompt) + response)[:max_length]
        rows.append({"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels})
    left_out = [f"{entries[number - 1].where}: {faults[number]}" for number in sorted(faults)]
    if left_out and not (leave_out and rows):
        shown = "; ".join(left_out[:5]) + (f"; and {len(left_out) - 5} more" if len(left_out) > 5 else "")
        can_go_on = "; leave_out goes on without them" if rows else ""
        raise ValueError(f"{path}: {len(left_out)} of {len(entries)} entries can't be used: {shown}{can_go_on}")
    return InstructionRows(Dataset.from_list(rows), len(entries), shortened, left_out)


class Batches(DataCollatorForSeq2Seq):
    """Makes batches of rows, padded to the longest, on the right.

    A Mamba's state passes from left to right, so what stands on the right of a row can't change it: padding there needs
    no mask to be harmless, whatever model gets the batch. (Prompts to generate from are padded on the left, where their
    last tokens line up.) Padding has the label -100 and the attention mask 0, also where the tokenizer pads with its
    eos_token. The model tells each row's context length by its labels.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        super().__init__(tokenizer, label_pad_token_id=IGNORED)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "right"


class _Entry(dict):
    """The fields of an entry, and where in the file it is; `broken` says why there are none."""

    def __init__(self, where: str, value: object = None, broken: str | None = None):
        super().__init__(value if isinstance(value, dict) else {})
        self.where = where
        self.broken = broken
        if broken is None and not isinstance(value, dict):
            self.broken = ("must be an object with the fields instruction, input and output, got a "
                           f"{type(value).__name__}")


def _read(path: Path) -> list[_Entry]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from None
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
        entries = [_Entry(f"entry {number}", value) for number, value in enumerate(values, 1)]
    else:
        entries = [_line(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not entries:
        raise ValueError(f"{path}: there are no entries")
    return entries


def _line(number: int, line: str) -> _Entry:
    where = f"line {number}"
    try:
        return _Entry(where, json.loads(line))
    except json.JSONDecodeError as error:
        return _Entry(where, broken=f"not JSON at column {error.colno}: {error.msg}")


def _fault(entry: _Entry) -> str | None:
    """Why an entry can't be used, or None."""
    if entry.broken:
        return entry.broken
    for name in ("instruction", "output"):
        if name not in entry:
            return f"the field {name!r} is missing, there are {sorted(map(str, entry))}"
    for name in ("instruction", "input", "output"):
        value = entry.get(name, "")
        if not isinstance(value, str):
            return f"the field {name!r} must be text, got {json.dumps(value)[:40]}"
    for name in ("instruction", "output"):
        if not entry[name].strip():
            return f"the field {name!r} is empty"
    return None


def _counted(items: list[str], one: str, many: str) -> str:
    if not items:
        return f"no {one}"
    shown = ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")
    return f"{len(items)} {one if len(items) == 1 else many} ({shown})"
