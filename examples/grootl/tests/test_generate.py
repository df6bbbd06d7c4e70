"""The command line that goes on with a text."""

import pytest
from grootl.checkpoints import load_model, load_tokenizer
from grootl.data import format_prompt
from grootl.finetune import add_lora
from grootl.generate import stream

from small_models import run_module, save_mamba


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_mamba(tmp_path_factory.mktemp("mamba"))


def test_prints_what_the_model_generates(folder):
    options = ("--mode", "causal", "--mixing", 0.5, "--max-new-tokens", 12, "--temperature", 2)
    outcome = run_module("grootl.generate", folder, "--instruction", "Name a tree.", *options)
    assert outcome.returncode == 0, outcome.stderr
    model, tokenizer = load_model(folder, mode="causal", mixing=0.5), load_tokenizer(folder)
    expected = stream(model, tokenizer, format_prompt("Name a tree."), max_new_tokens=12, temperature=2)
    assert outcome.stdout == f"{expected}\n" and len(set(expected)) > 3
    assert "Traceback" not in outcome.stderr


def test_seeds_and_adapters(folder, capsys):
    model, tokenizer = load_model(folder, mode="causal"), load_tokenizer(folder)
    drawn = [stream(model, tokenizer, "a", max_new_tokens=12, temperature=1, top_p=0.9, seed=seed)
             for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert capsys.readouterr().out.splitlines() == drawn
    assert stream(add_lora(model), tokenizer, "a", max_new_tokens=12, temperature=1, top_p=0.9) == drawn[0]


@pytest.mark.parametrize(("options", "message"), [
    ({"prompt": ""}, "prompt must have 1 to 2048 tokens, got 0"),
    ({"prompt": "too long", "max_prompt": 4}, "prompt must have 1 to 4 tokens, got 8"),
    ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
    ({"temperature": -1.0}, "temperature must be finite and at least 0, got -1.0"),
    ({"top_p": 0.0}, "top_p must be more than 0 and at most 1, got 0.0")])
def test_errors(folder, options, message):
    with pytest.raises(ValueError, match=message):
        stream(load_model(folder), load_tokenizer(folder), **{"prompt": "a", **options})


def test_another_models_tokenizer(folder):
    model = load_model(folder)
    model.config.vocab_size = 60
    with pytest.raises(ValueError, match="the tokenizer isn't the model's: it gives the prompt token [0-9]+.* has 60"):
        stream(model, load_tokenizer(folder), "~")


def test_a_missing_folder_is_one_line(tmp_path):
    outcome = run_module("grootl.generate", tmp_path / "none", "--prompt", "a")
    assert outcome.returncode == 1 and outcome.stdout == ""
    assert outcome.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'none'}: the model must be a folder on disk")
