"""Fine-tuning: what is trained, two processes and a killed one against one that ran through, merging, and mistakes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from grootl import GrootLForCausalLM, finetune, merge
from grootl.checkpoints import load_model, load_tokenizer
from grootl.command_line import run
from grootl.data import Batches, load_instructions
from grootl.mixer import GrootLMixer
from safetensors.torch import load_file
from small_models import ROOT, TIMEOUT, command_of, environment, run_module, save_instructions, save_mamba
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel


@pytest.fixture(scope="module")
def mamba(tmp_path_factory):
    return save_mamba(tmp_path_factory.mktemp("mamba"))


@pytest.fixture(scope="module")
def alpaca(tmp_path_factory):
    return save_instructions(tmp_path_factory.mktemp("data") / "alpaca.json")


def tune(mamba, alpaca, output, max_steps, mode="causal", dropout=0.0, resume=False, targets=finetune.TARGETS,
         **training):
    """Fine-tunes with one process, here, as the command does; gives each step's loss."""
    settings = {"per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 5e-3, "save_strategy": "no",
                "disable_tqdm": True} | training
    arguments = finetune.FinetuneArguments(str(mamba), str(alpaca), mode=mode, dropout=dropout, resume=resume,
                                           targets=list(targets))
    finetune.finetune(arguments, finetune.Training(str(output), max_steps=max_steps, **settings))
    return losses(output)


def arguments_of(mamba, alpaca, output, max_steps):
    """The same on the command line, but for the size of batches and what is saved."""
    return ("--model", mamba, "--data", alpaca, "--output", output, "--mode", "causal", "--max_steps", max_steps,
            "--logging_steps", 1, "--learning_rate", 5e-3)


def losses(output):
    history = json.loads((Path(output) / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def adapter(output):
    return load_file(Path(output) / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def tuned(mamba, alpaca, tmp_path_factory):
    """An adapter, and the losses it was trained with."""
    output = tmp_path_factory.mktemp("tuned")
    return output, tune(mamba, alpaca, output, max_steps=7)


def test_the_loss_is_that_of_the_responses_with_each_row_own_prompt(mamba, alpaca):
    model, tokenizer = load_model(mamba, mode="causal"), load_tokenizer(mamba)
    rows = load_instructions(alpaca, tokenizer).rows
    batch = Batches(tokenizer)([rows[index] for index in (0, 3, 6)])
    with torch.no_grad():
        loss = model(**batch).loss
        each = []
        for row in rows.select((0, 3, 6)):
            prompt = row["labels"].count(-100)
            logits = model(torch.tensor([row["input_ids"]]), context_length=prompt).logits[0, prompt - 1:-1]
            each.append(functional.cross_entropy(logits, torch.tensor(row["input_ids"][prompt:]), reduction="none"))
    torch.testing.assert_close(loss, torch.cat(each).mean(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["chain", "original", "causal"])
def test_only_adapters_on_the_published_targets_are_trained(mamba, mode):
    model = finetune.add_lora(load_model(mamba, mode=mode), rank=3)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in trained)
    layers = {next(part for part in name.split(".") if part in finetune.TARGETS) for name in trained}
    assert layers == set(finetune.TARGETS)
    assert len(trained) == 2 * (1 + 3 * 2)  # A and B of the embeddings and of three layers in each of two blocks


def test_training_lowers_the_loss_and_says_what_it_did(tuned, mamba, alpaca, tmp_path, capfd):
    assert len(tuned[1]) == 7 and tuned[1][-1] < 0.9 * tuned[1][1]
    tune(mamba, alpaca, tmp_path / "x", max_steps=1)
    said = capfd.readouterr().out
    assert "mode causal, mixing 0.3, window 3; 7,624 of 31,560 parameters are trained" in said
    assert "13 rows of 13 entries" in said and "1 rows, others in each epoch" in said


def test_accumulated_batches_are_one_batch(tuned, mamba, alpaca, tmp_path):
    settings = {"max_steps": 3, "lr_scheduler_type": "constant", "warmup_steps": 0}
    accumulated = tune(mamba, alpaca, tmp_path / "accumulated", per_device_train_batch_size=2,
                       gradient_accumulation_steps=2, **settings)
    whole = tune(mamba, alpaca, tmp_path / "whole", **settings)
    torch.testing.assert_close(accumulated, whole, rtol=0, atol=1e-5)
    assert whole[2] < whole[0]


def test_gradient_checkpointing_computes_twice_and_changes_nothing(tuned, mamba, alpaca, tmp_path, monkeypatch):
    calls, forward = [], GrootLMixer.forward
    monkeypatch.setattr(GrootLMixer, "forward", lambda *arguments: (calls.append(1), forward(*arguments))[1])
    assert tune(mamba, alpaca, tmp_path, max_steps=7, gradient_checkpointing=True) == tuned[1]
    assert len(calls) == 2 * 2 * 7  # by two blocks in seven steps


def test_bfloat16(tuned, mamba, alpaca, tmp_path):
    # The loss of the first step, which no difference of trained weights is in yet.
    assert tune(mamba, alpaca, tmp_path, max_steps=1, bf16=True)[0] == pytest.approx(tuned[1][0], rel=1e-2)


def test_two_processes_train_as_one(mamba, alpaca, tmp_path):
    done = run_module("grootl.finetune", *arguments_of(mamba, alpaca, tmp_path / "two", max_steps=5),
                      "--per_device_train_batch_size", 2, "--save_strategy", "no", processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("rows of 13 entries") == 1  # one process speaks for both
    one = tune(mamba, alpaca, tmp_path / "one", max_steps=5)
    torch.testing.assert_close(losses(tmp_path / "two"), one, rtol=0, atol=1e-4)
    weights, alone = adapter(tmp_path / "two"), adapter(tmp_path / "one")
    assert weights.keys() == alone.keys()
    torch.testing.assert_close(weights, alone, rtol=0, atol=1e-4)


def test_killed_and_resumed_is_uninterrupted_to_the_bit(mamba, alpaca, tmp_path, capfd):
    steps, killed = 25, tmp_path / "killed"
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 4}
    process = subprocess.Popen(
        command_of("grootl.finetune", *arguments_of(mamba, alpaca, killed, max_steps=steps), "--dropout", 0.1,
                   "--per_device_train_batch_size", 4, "--save_steps", 1, "--save_total_limit", 4),
        env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        waited = time.monotonic() + TIMEOUT
        while not (killed / "checkpoint-6" / "trainer_state.json").exists():
            assert process.poll() is None and time.monotonic() < waited
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait(20) == -signal.SIGKILL and not (killed / "adapter_model.safetensors").exists()
    # As if it had been killed while it wrote the newest checkpoint.
    newest = max(killed.glob("checkpoint-*"), key=lambda folder: int(folder.name[11:]))
    (newest / "trainer_state.json").write_text('{"best')
    capfd.readouterr()
    resumed = tune(mamba, alpaca, killed, max_steps=steps, dropout=0.1, resume=True, **settings)
    said = capfd.readouterr().out
    assert f"resuming from {killed}/checkpoint-" in said and f"resuming from {newest}" not in said
    through = tune(mamba, alpaca, tmp_path / "through", max_steps=steps, dropout=0.1)
    assert len(through) == steps and resumed == through
    weights, expected = adapter(killed), adapter(tmp_path / "through")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_checkpoints_are_not_trained_over(mamba, alpaca, tmp_path, capfd):
    settings = {"save_strategy": "steps", "save_steps": 2}
    first = tune(mamba, alpaca, tmp_path, max_steps=2, resume=True, **settings)
    assert "nothing to resume" in capfd.readouterr().out
    with pytest.raises(ValueError, match="holds checkpoint-2; resume goes on from it"):
        tune(mamba, alpaca, tmp_path, max_steps=2, **settings)
    with pytest.raises(ValueError, match="was trained with mode 'causal', which can't go on with 'chain'"):
        tune(mamba, alpaca, tmp_path, mode="chain", max_steps=2, resume=True, **settings)
    assert losses(tmp_path) == first


@pytest.mark.parametrize("targets", [finetune.TARGETS, ("in_proj", "dt_proj")], ids=["embeddings too", "layers only"])
def test_a_merged_model_is_the_model_with_its_adapter(mamba, alpaca, tmp_path, monkeypatch, targets):
    tune(mamba, alpaca, tmp_path / "adapter", max_steps=3, targets=targets)
    monkeypatch.setattr("sys.argv", ["merge", "--adapter", f"{tmp_path}/adapter", "--output", f"{tmp_path}/merged"])
    run(merge.main)
    merged = load_model(tmp_path / "merged").eval()
    assert type(merged) is GrootLForCausalLM and merged.config.mode == "causal"
    ids = torch.arange(3, 40)[None] * torch.tensor([[1], [5]])
    with torch.no_grad():
        adapted = load_model(tmp_path / "adapter", dtype=torch.float64).eval()
        expected, unadapted = adapted(ids).logits, load_model(mamba, dtype=torch.float64)(ids).logits
        torch.testing.assert_close(merge.merge(adapted)(ids).logits, expected, rtol=0, atol=1e-6)
        again = merge.merge(load_model(tmp_path / "adapter")).eval()
        assert torch.equal(merged(ids).logits, again(ids).logits)
        torch.testing.assert_close(merged(ids).logits, expected.float(), rtol=0, atol=1e-3)
    assert (expected - unadapted).abs().max() > 1e-2
    # An adapter on the embeddings isn't on the head, which has the same weights until then.
    tied = merged.lm_head.weight is merged.backbone.embeddings.weight
    assert tied == merged.config.tie_word_embeddings == ("embeddings" not in targets)
    assert load_tokenizer(tmp_path / "merged")("a")["input_ids"] == load_tokenizer(mamba)("a")["input_ids"]
    with pytest.raises(SystemExit, match="error: .*merged: holds files already"):
        run(merge.main)


def damaged(mamba, tmp_path):
    folder = shutil.copytree(mamba, tmp_path / "damaged")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:len(weights) // 2])
    return folder


def of_other_size(mamba, tmp_path):
    folder = shutil.copytree(mamba, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    return folder


def gpt2(mamba, tmp_path):
    GPT2LMHeadModel(GPT2Config(vocab_size=257, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def without_tokenizer(mamba, tmp_path):
    folder = shutil.copytree(mamba, tmp_path / "mute")
    (folder / "tokenizer.json").unlink()
    return folder


MISTAKES = {
    "no such model": ({"--model": "nowhere"}, "nowhere: the model must be a folder on disk"),
    "no model in it": ({"--model": lambda mamba, tmp_path: tmp_path}, "there is no model, config.json is missing"),
    "another model": ({"--model": gpt2}, "gpt2 must hold a model of type 'mamba' or 'grootl', got 'gpt2'"),
    "damaged weights": ({"--model": damaged}, "the weights can't be loaded: "),
    "missing weights": ({"--model": of_other_size}, "weights aren't those of the configuration, missing keys: back"),
    "no tokenizer": ({"--model": without_tokenizer}, "there is no tokenizer, tokenizer.json is missing"),
    "no data": ({"--data": "nowhere.json"}, "nowhere.json: there is no such file"),
    "targets": ({"--targets": "q_proj"}, "targets must be names of layers, of conv1d, .*; got q_proj"),
    "mode": ({"--mode": "tree"}, "mode must be one of 'chain', 'original', 'causal', got 'tree'"),
    "window": ({"--window": "0"}, "window must be at least 1, got 0"),
    "argument": ({"--learningrate": "1"}, "--learningrate"),
    "batch": ({"--per_device_train_batch_size": "14"}, r"rows must fill the batches of all processes, 14 x 1; got 13"),
}


@pytest.mark.parametrize("changes, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_message(mamba, alpaca, tmp_path, monkeypatch, changes, message):
    arguments = {"--model": mamba, "--data": alpaca, "--output": tmp_path / "x"} | changes
    arguments = {name: value(mamba, tmp_path) if callable(value) else value for name, value in arguments.items()}
    monkeypatch.setattr("sys.argv", ["finetune", *(str(part) for pair in arguments.items() for part in pair)])
    with pytest.raises(SystemExit, match=f"^error: .*{message}") as exit:
        run(finetune.main)
    assert "\n" not in exit.value.code
    assert not (tmp_path / "x" / "adapter_model.safetensors").exists()


def test_deepspeed_configuration_is_stage_2():
    configuration = json.loads((ROOT / "deepspeed.json").read_text())
    assert HfDeepSpeedConfig(configuration).is_zero2()
    # What the command's arguments say holds there as well.
    assert {name for name, value in configuration.items() if value == "auto"} == {
        "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"}
