"""Killed and resumed runs equal uninterrupted ones to the bit; several processes equal one."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from training import ENVIRONMENT, command, configuration, losses, run, write_digits

from grootv.classification import Augmentation, Classification
from grootv.engine import train

# All that draws random numbers but drop path, and what has state: the moving average, the schedule, the optimizer.
EVERYTHING = dict(augmentation=Augmentation(flip=0.5, color_jitter=0.4))


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"), 8, 3)


def write(config, path: Path) -> Path:
    OmegaConf.save(OmegaConf.structured(config), path)
    return path


def state(output: Path) -> dict:
    return torch.load(output / "checkpoint.pt", weights_only=True)


def assert_same_end(found: Path, wanted: Path) -> None:
    found, wanted = state(found), state(wanted)
    for name in ("model", "ema"):
        for key, value in wanted[name].items():
            assert torch.equal(found[name][key], value), (name, key)


@pytest.fixture(scope="module")
def uninterrupted(digits, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    config = configuration(digits, output, **EVERYTHING)
    config.model["drop_path_rate"] = 0.3
    train(Classification(config), config)
    assert len(losses(output)) == 10
    return output


def start_and_signal(arguments: list[str], output: Path, number: int) -> tuple[int, str]:
    """What a command that is sent a signal in the middle of its first epoch returned and said."""
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log, end = output / "log.jsonl", time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < 3:
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            break
        time.sleep(0.002)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    return process.returncode, said


def test_killed_and_resumed(digits, uninterrupted, tmp_path):
    """Killed in the middle of an epoch, between checkpoints, with a worker; resumed by another process, without."""
    config = configuration(digits, tmp_path / "run", checkpoint_every=0.4, workers=1, **EVERYTHING)  # two of five iterations
    config.model["drop_path_rate"] = 0.3
    file = write(config, tmp_path / "config.yaml")
    returned, said = start_and_signal(command("train", file), tmp_path / "run", signal.SIGKILL)
    assert returned == -signal.SIGKILL, said
    assert state(tmp_path / "run")["step"] in (2, 4, 6, 8)
    resumed = replace(config, resume=True, workers=0)
    train(Classification(resumed), resumed)
    assert losses(tmp_path / "run") == losses(uninterrupted)
    assert_same_end(tmp_path / "run", uninterrupted)


def test_stopped_and_resumed(digits, uninterrupted, tmp_path, capsys):
    config = configuration(digits, tmp_path / "run", **EVERYTHING)
    config.model["drop_path_rate"] = 0.3
    task, calls = Classification(config), []

    def loss_with_signal(model, batch, loss=task.loss):
        calls.append(len(calls))
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(model, batch)

    task.loss = loss_with_signal
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        train(task, config)
    assert stopped.value.code == 128 + signal.SIGTERM and signal.getsignal(signal.SIGTERM) == before
    assert "stopped after iteration 3 of 10; resume=true goes on from there" in capsys.readouterr().out
    assert state(tmp_path / "run")["step"] == 3
    resumed = replace(config, resume=True)
    train(Classification(resumed), resumed)
    assert losses(tmp_path / "run") == losses(uninterrupted)
    assert_same_end(tmp_path / "run", uninterrupted)


def test_two_processes_stop_together(digits, tmp_path):
    """torchrun signals the processes and their workers, each in another moment."""
    config = configuration(digits, tmp_path / "run", epochs=100, workers=1, **EVERYTHING)
    file = write(config, tmp_path / "config.yaml")
    _, said = start_and_signal(command("train", file, processes=2), tmp_path / "run", signal.SIGTERM)
    stopped = state(tmp_path / "run")["step"]
    assert f"stopped after iteration {stopped} of 500; resume=true goes on from there" in said
    assert len(losses(tmp_path / "run")) == stopped >= 3


def test_a_finished_run_is_only_evaluated(digits, uninterrupted):
    config = configuration(digits, uninterrupted, resume=True, **EVERYTHING)
    config.model["drop_path_rate"] = 0.3
    before = losses(uninterrupted)
    assert set(train(Classification(config), config)) == {"top1", "top5"}
    assert losses(uninterrupted) == before


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_processes_equal_one(digits, tmp_path, parallel):
    one = configuration(digits, tmp_path / "one", epochs=1, **EVERYTHING)
    results = train(Classification(one), one)
    two = write(configuration(digits, tmp_path / "two", epochs=1, parallel=parallel, **EVERYTHING), tmp_path / "two.yaml")
    finished = run("train", two, processes=2)
    assert finished.returncode == 0, finished.stderr
    torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), atol=1e-4, rtol=0)
    a, b = state(tmp_path / "one"), state(tmp_path / "two")
    for name in ("model", "ema"):
        torch.testing.assert_close(b[name], a[name], atol=2e-3, rtol=0)
    # A sharded run's checkpoint is an ordinary one, and goes on in one process.
    goes_on = configuration(digits, tmp_path / "two", epochs=1, resume=True, **EVERYTHING)
    torch.testing.assert_close(train(Classification(goes_on), goes_on), results, atol=0.04, rtol=0)


def test_pieces_of_a_batch_equal_the_whole(digits, tmp_path):
    """Without batch norm's statistics, which pieces have of their own."""
    runs = {}
    for accumulate in (1, 4):
        config = configuration(digits, tmp_path / str(accumulate), epochs=1, accumulate=accumulate, **EVERYTHING)
        task = Classification(config)
        task.loss = lambda model, batch, loss=task.loss: loss(model.eval(), batch)
        train(task, config)
        runs[accumulate] = losses(tmp_path / str(accumulate))
    torch.testing.assert_close(runs[4], runs[1], atol=1e-5, rtol=0)
