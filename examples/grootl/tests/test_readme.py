"""What the README tells people to run, in its order, with less of everything."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from small_wordnet import save_made_up

from grootl import corpora

README = (Path(__file__).parent.parent / "README.md").read_text()
LESS = {
    "corpora": [],
    "pretrain": "--vocab_size 300 --hidden_size 16 --num_hidden_layers 1 --steps 3".split(),
    "finetune": "--max_length 192 --max_steps 2 --per_device_train_batch_size 2 --report_to none".split(),
    "evaluate": ["--limit", "2"],
    "generate": ["--max-new-tokens", "3"],
    "merge": [],
}


def test_commands_and_code_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "WORDNET", save_made_up(tmp_path / "wordnet", 4000))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    done = []
    runnable = r"```python\n(.*?)```|^    python -m grootl\.(\w+) ([^\n]*)$"
    for code, module, arguments in re.findall(runnable, README, re.M | re.S):
        if code:
            exec(compile(code, "README.md", "exec"), names)
            done.append("python")
            continue
        monkeypatch.setattr(sys, "argv", [module, *shlex.split(arguments), *LESS[module]])
        importlib.import_module(f"grootl.{module}").main()
        done.append(module)
    assert done == ["corpora", "pretrain", "python", "python", "finetune", "evaluate", "generate", "merge"]
    assert (tmp_path / "merged" / "config.json").is_file()


def test_files_of_the_readme_are_there():
    root = Path(__file__).parent.parent
    table = README.partition("## What is where")[2]
    for name in re.findall(r"`([\w/]+\.(?:py|md|sh)|\w+/)`", table.replace("docs/grootl.md", "")):
        folder = (root / name).parent if "/" in name.rstrip("/") else root / "grootl"
        assert (folder / Path(name).name).exists(), name
    assert {path.name for path in (root / "grootl").glob("*.py")} - {"__init__.py", "command_line.py"} <= {
        Path(name).name for name in re.findall(r"`([\w/]+\.py)`", table)}


@pytest.mark.parametrize("command", sorted(LESS))
def test_commands_explain_their_arguments(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as exit:
        importlib.import_module(f"grootl.{command}").main()
    assert exit.value.code == 0 and f"python -m grootl.{command}" in capsys.readouterr().out
