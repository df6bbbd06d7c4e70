"""A small Mamba from scratch."""

import sys

import pytest
import torch
from small_wordnet import save_made_up
from transformers import AutoTokenizer, MambaForCausalLM

from grootl import GrootLForCausalLM, pretrain
from grootl.corpora import passages, read_wordnet
from grootl.pretrain import Pretraining, read_texts

SMALL = Pretraining(vocab_size=300, hidden_size=24, num_hidden_layers=2, state_size=5, steps=40, batch_size=3, length=33,
                    learning_rate=1e-2)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return passages(read_wordnet(save_made_up(tmp_path_factory.mktemp("wordnet"))))


@pytest.fixture(scope="module")
def pretrained(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mamba")
    return folder, pretrain.pretrain(texts, folder, SMALL)


def test_a_few_steps_lower_the_loss(texts, pretrained):
    folder, what = pretrained
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(tokenizer("\n".join(texts[:3]))["input_ids"])[None, :200]
    model = MambaForCausalLM.from_pretrained(folder)
    loss = model(ids, labels=ids).loss.item()
    assert loss < torch.tensor(float(len(tokenizer))).log().item() - 1  # that of a guess
    assert abs(what["loss"] - loss) < 0.7
    assert what["parameters"] == model.num_parameters()


def test_the_folder_is_an_ordinary_mambas(pretrained):
    folder, _ = pretrained
    mamba, chain = MambaForCausalLM.from_pretrained(folder), GrootLForCausalLM.from_pretrained(folder, mode="chain")
    assert mamba.config.model_type == "mamba" and mamba.config.architectures == ["MambaForCausalLM"]
    ids = torch.arange(2, 39)[None]
    torch.testing.assert_close(chain(ids).logits, mamba(ids).logits, rtol=1e-5, atol=1e-5)


def test_any_text_survives_the_tokenizer(pretrained):
    tokenizer = AutoTokenizer.from_pretrained(pretrained[0])
    for text in (" oak ,  'tis ~ 1 .", "### Response:\n", "größer 木 \t\n\n", ""):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer("a<|endoftext|>")["input_ids"][-1] == tokenizer.eos_token_id


def test_the_same_seed_gives_the_same_model(texts, tmp_path):
    short = Pretraining(**vars(SMALL) | {"steps": 2})
    weights = []
    for name in ("a", "b"):
        pretrain.pretrain(texts, tmp_path / name, short)
        weights.append(MambaForCausalLM.from_pretrained(tmp_path / name).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_too_little_text_and_sizes_out_of_range_are_errors(tmp_path):
    with pytest.raises(ValueError, match="at least one piece of 33 tokens"):
        pretrain.pretrain(["oak"], tmp_path, SMALL)
    for name, value in (("steps", 0), ("vocab_size", 256), ("length", 1), ("state_size", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            Pretraining(**{name: value})


def test_files_without_text_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere.txt: there is no such file"):
        read_texts(tmp_path / "nowhere.txt")
    (tmp_path / "empty.txt").write_text("\n\n \n")
    with pytest.raises(ValueError, match="empty.txt: there is no text"):
        read_texts(tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"oak\xff")
    with pytest.raises(ValueError, match="binary.txt: not UTF-8 at byte 3"):
        read_texts(tmp_path / "binary.txt")
    monkeypatch.setattr(sys, "argv", ["pretrain", "--text", str(tmp_path / "empty.txt"), "--output", str(tmp_path / "x")])
    with pytest.raises(ValueError, match="there is no text"):
        pretrain.main()
    assert not (tmp_path / "x").exists()
