"""Instruction data: prompts masked per row, and everything that can be wrong with a file."""

from __future__ import annotations

import json

import pytest
from grootl.data import IGNORED, Batches, format_prompt, load_instructions
from small_models import byte_tokenizer

GOOD = {"instruction": "Name a tree.", "input": "", "output": "oak"}


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def write(tmp_path, *lines):
    path = tmp_path / "alpaca.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_a_prompt_is_masked_and_a_response_with_its_end_is_learned(tmp_path, tokenizer):
    row = load_instructions(write(tmp_path, GOOD), tokenizer).rows[0]
    prompt = tokenizer(format_prompt("Name a tree."))["input_ids"]
    response = [*tokenizer("oak")["input_ids"], tokenizer.eos_token_id]
    assert row["input_ids"] == prompt + response
    assert row["labels"] == [IGNORED] * len(prompt) + response
    assert row["attention_mask"] == [1] * len(row["input_ids"])


def test_the_prompt_shows_an_input_where_there_is_one():
    with_input, without = format_prompt("Translate.", "Baum"), format_prompt("Translate.")
    assert "### Instruction:\nTranslate.\n\n### Input:\nBaum\n\n### Response:\n" in with_input
    assert "Input" not in without and without.endswith("### Instruction:\nTranslate.\n\n### Response:\n")


@pytest.mark.parametrize("as_list", [True, False])
def test_lists_and_lines_are_read_alike(tmp_path, tokenizer, as_list):
    entries = [GOOD, {"instruction": "Füge {x} hinzu", "output": "ja {y}\u2028"}]
    path = tmp_path / "data"
    path.write_text(json.dumps(entries, indent=1) if as_list else
                    "\ufeff" + "\r\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\r\n\r\n",
                    encoding="utf-8")
    loaded = load_instructions(path, tokenizer)
    assert (loaded.entries, len(loaded.rows)) == (2, 2)
    text = tokenizer.decode(loaded.rows[1]["input_ids"])
    assert text.endswith("Füge {x} hinzu\n\n### Response:\nja {y}\u2028<|endoftext|>")


def test_every_row_has_its_own_prompt_and_padding_on_the_right(tmp_path, tokenizer):
    rows = load_instructions(write(tmp_path, GOOD, {**GOOD, "instruction": "Name another tree.", "output": "a yew"}),
                             tokenizer).rows
    batch = Batches(tokenizer)([rows[0], rows[1]])
    lengths = [len(row["input_ids"]) for row in rows]
    assert lengths[0] < lengths[1] == batch["input_ids"].shape[1]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["attention_mask"][0, lengths[0]:].sum() == 0
    assert (batch["labels"][0, lengths[0]:] == IGNORED).all()
    assert batch["labels"][0, lengths[0] - 1] == tokenizer.eos_token_id  # which is the padding's token as well
    learned = batch["labels"] != IGNORED
    assert learned.sum(1).tolist() == [len("oak") + 1, len("a yew") + 1]
    assert (batch["labels"] == batch["input_ids"])[learned].all()


def test_long_responses_are_cut_and_counted(tmp_path, tokenizer):
    prompt = len(format_prompt("Name a tree."))
    path = write(tmp_path, GOOD, {**GOOD, "output": "oak and yew"}, GOOD)
    loaded = load_instructions(path, tokenizer, prompt + 4)
    assert loaded.shortened == [f"line 2: {prompt + 12} tokens, {prompt + 4} kept"]
    assert tokenizer.decode(loaded.rows[1]["input_ids"]).endswith("oak ")  # without the end of text, which isn't there
    assert loaded.rows[0]["input_ids"][-1] == tokenizer.eos_token_id
    assert "1 response cut at the limit (line 2" in str(loaded)


FAULTS = {
    "not json": ("{broken", r"line 2: not JSON at column 2: Expecting property name"),
    "no object": ("[1]", r"line 2: must be an object .* got a list"),
    "missing output": ({"instruction": "a", "input": ""}, r"line 2: the field 'output' is missing, .*'inst"),
    "missing instruction": ({"output": "a"}, r"line 2: the field 'instruction' is missing"),
    "not text": ({**GOOD, "input": 3}, r"line 2: the field 'input' must be text, got 3"),
    "no text": ({**GOOD, "output": None}, r"line 2: the field 'output' must be text, got null"),
    "empty response": ({**GOOD, "output": " \n"}, r"line 2: the field 'output' is empty"),
    "long prompt": ({**GOOD, "instruction": "a" * 600}, r"line 2: the prompt has 7\d\d tokens, .* max_length=512"),
}


@pytest.mark.parametrize("line, message", FAULTS.values(), ids=FAULTS)
def test_what_can_not_be_used_is_named(tmp_path, tokenizer, line, message):
    path = write(tmp_path, GOOD, line, GOOD)
    with pytest.raises(ValueError, match=message) as error:
        load_instructions(path, tokenizer)
    assert str(error.value).startswith(f"{path}: 1 of 3 entries can't be used: ")
    loaded = load_instructions(path, tokenizer, leave_out=True)
    assert len(loaded.rows) == 2 and loaded.entries == 3
    assert len(loaded.left_out) == 1 and loaded.left_out[0].startswith("line 2: ")
    assert "1 entry left out (line 2: " in str(loaded)


def test_entries_of_a_list_are_named_by_number_and_all_at_once(tmp_path, tokenizer):
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([GOOD, {**GOOD, "output": ""}, {}, GOOD] + [{}] * 4))
    message = "6 of 8 entries .*: entry 2: .*empty; entry 3: .*missing.*; and 1 more; leave_out"
    with pytest.raises(ValueError, match=message):
        load_instructions(path, tokenizer)


def test_files_without_anything_to_learn(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match="nowhere.json: there is no such file"):
        load_instructions(tmp_path / "nowhere.json", tokenizer)
    with pytest.raises(ValueError, match="alpaca.jsonl: there are no entries"):
        load_instructions(write(tmp_path, ""), tokenizer)
    with pytest.raises(ValueError, match="not JSON at line 1, column 6"):
        load_instructions(write(tmp_path, "[{}, "), tokenizer)
    with pytest.raises(ValueError, match="1 of 1 entries can't be used"):  # leaving all out is no way to go on
        load_instructions(write(tmp_path, {}), tokenizer, leave_out=True)
    (tmp_path / "latin").write_bytes(b'{"instruction": "\xe9"}')
    with pytest.raises(ValueError, match="latin: not UTF-8 at byte 17"):
        load_instructions(tmp_path / "latin", tokenizer)
    with pytest.raises(ValueError, match="max_length must be at least 2"):
        load_instructions(write(tmp_path, GOOD), tokenizer, 1)
