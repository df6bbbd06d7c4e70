"""The script of the real thing, on random weights of mamba-130m-hf's configuration: a step, merging, and evaluation."""

from __future__ import annotations

import json
import subprocess
import sys

import torch
from small_models import ROOT, TIMEOUT, byte_tokenizer, environment, save_instructions
from transformers import MambaConfig, MambaForCausalLM


def test_a_step_of_the_130m_configuration(tmp_path):
    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(hidden_size=768, num_hidden_layers=24, vocab_size=50280))
    assert 129_000_000 < model.num_parameters() < 130_000_000
    model.save_pretrained(tmp_path / "mamba-130m-hf")
    del model
    byte_tokenizer().save_pretrained(tmp_path / "mamba-130m-hf")
    (tmp_path / "last_word.jsonl").write_text(json.dumps({"context": "an acorn grows into an", "word": "oak"}))
    done = subprocess.run(
        [ROOT / "scripts" / "alpaca.sh", tmp_path / "mamba-130m-hf", save_instructions(tmp_path / "alpaca.json", 2),
         tmp_path / "output", "causal", "--max_steps", "1", "--per_device_train_batch_size", "1",
         "--gradient_accumulation_steps", "2", "--max_length", "220", "--logging_steps", "1", "--warmup_steps", "0"],
        env=environment() | {"PYTHON": sys.executable, "TASKS": "grootl_last_word", "DATA": str(tmp_path),
                             "HF_HOME": str(tmp_path / "cache")},
        capture_output=True, text=True, timeout=3 * TIMEOUT)
    assert done.returncode == 0, done.stderr
    perplexities = {}
    for name in ("unadapted", "causal"):
        results = json.loads((tmp_path / "output" / f"{name}.json").read_text())
        perplexities[name] = results["results"]["grootl_last_word"]["perplexity,none"]
    assert results["mode"] == "causal" and perplexities["causal"] != perplexities["unadapted"]
    assert (tmp_path / "output" / "merged" / "config.json").exists()
