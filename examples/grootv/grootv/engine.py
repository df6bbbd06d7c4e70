"""Trains and evaluates any task: in one process or many, with checkpoints from which a run goes on as if never stopped."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from omegaconf import OmegaConf
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (StateDictOptions, get_model_state_dict, get_optimizer_state_dict,
                                                     set_model_state_dict, set_optimizer_state_dict)
from torch.utils._pytree import tree_map_only
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .batches import BatchKeys, load, seed_everything, seed_step
from .checkpoint import load_original
from .config import Config, as_dict
from .distributed import Place, accumulating, average, processes, replicate, shard, synchronise_batch_norm
from .files import read_state, write_atomically
from .model import GrootV

# What may differ when a run goes on: where and how it computes, not what.
MAY_CHANGE = {"data", "output", "resume", "checkpoint", "weights", "accumulate", "evaluation_batch_size", "compile", "parallel",
              "workers", "device", "evaluate_every", "checkpoint_every", "log_every"}
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Task(Protocol):
    """What the engine asks of a task. Its class has an attribute `Config`, a dataclass derived from `config.Config`."""

    def __init__(self, config: Config): ...

    def model(self) -> nn.Module:
        """A fresh model on the CPU; the engine seeds before."""

    def train_data(self) -> Dataset:
        """Map-style. The engine seeds before each item, so that it depends on (seed, epoch, index) only, and calls
        `set_epoch(epoch)` where there is one. What is wrong with a file is a ValueError that names it."""

    def collate(self, items: list) -> Any:
        """A batch: any nesting of tuples, lists and dicts with tensors, which the engine moves to the device."""

    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Scalars whose sum is minimised, each the mean over the batch's items: the engine averages over processes. Called
        in training mode, inside autocast. `model` may be wrapped: call it, nothing else."""

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Plain numbers, the same in all processes. Called without gradients, in evaluation mode, inside autocast. See
        `batches.evaluation_batches` for a share of the data."""


def train(task: Task, config: Config) -> dict[str, float]:
    """Trains as configured, and returns the last evaluation.

    At SIGTERM or SIGINT the run stops after the iteration that the log's next line is for, keeps a checkpoint and raises
    SystemExit.

    Raises ValueError or FileNotFoundError for what its user can mend: data, output folder, configuration, a loss that isn't
    finite.

    Determinism: on the CPU, a run that was killed and resumed has the same losses to the bit; any number of processes has the
    same to rounding, without drop path and what else draws from torch's generator on the way.
    """
    with processes(config.device) as place:
        return Run(task, config, place).run()


def evaluate(task: Task, config: Config) -> dict[str, float]:
    """What `task.evaluate` finds of the weights in `config.checkpoint`."""
    if config.checkpoint is None:
        raise ValueError("checkpoint is missing: give checkpoint=/path/to/checkpoint.pt")
    with processes(config.device) as place:
        model = task.model()
        load_weights(model, config)
        return _evaluate(task, model.to(place.device), config, place)


def load_weights(model: nn.Module, config: Config, *, start: bool = False) -> None:
    """Loads what `config.checkpoint` holds, of a run here or the original's, into a model of `config`.

    To `start` training, a classifier of other classes stays as it is initialised. ValueError where the file belongs to another
    model or task, FileNotFoundError where there is none.
    """
    weights, trained = read_weights(config)
    fresh = {}
    if start and isinstance(model, GrootV) and len(weights.get("head.bias", ())) != model.num_classes:
        fresh = {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
    try:
        model.load_state_dict(weights | fresh)
    except RuntimeError as error:
        raise ValueError(f"{config.checkpoint} holds the weights of another model: it was trained as {trained}, and here "
                         f"model is {config.model}; {str(error).splitlines()[1].strip()[:200]}") from error


def read_weights(config: Config) -> tuple[dict[str, Tensor], str]:
    """The weights in `config.checkpoint`, and of what they are; raises as `load_weights` does."""
    path = config.checkpoint
    state = _own_checkpoint(path)
    if state is None:
        return load_original(path).state_dict(), "an original GrootV"
    if state["config"]["task"] != config.task:
        raise ValueError(f"{path} is of a {state['config']['task']} run, but the task here is {config.task}")
    return state[config.weights] or state["model"], f"model {state['config']['model']}"


def _own_checkpoint(path: str) -> dict | None:
    try:
        state = read_state(path)
    except ValueError:  # the original's hold more than tensors
        return None
    return state if {"config", "model", "step"} <= state.keys() else None


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """timm's, without decay for what is a bias or a scale in whatever shape, or what a part of the model exempts."""
    exempt = {f"{name}.{parameter}".lstrip(".") for name, module in model.named_modules()
              if hasattr(module, "no_weight_decay") for parameter in module.no_weight_decay()}
    exempt |= {name for name, _ in model.named_parameters() if name.endswith("bias")}
    groups = param_groups_weight_decay(model, config.optimizer.weight_decay, no_weight_decay_list=exempt)
    try:
        return create_optimizer_v2(groups, config.optimizer.name, lr=config.optimizer.lr * _scale(config),
                                   momentum=config.optimizer.momentum)
    except (KeyError, AssertionError, ValueError) as error:
        raise ValueError(f"cannot make the optimizer {config.optimizer.name!r}: {error}") from error


def _scale(config: Config) -> float:
    return config.batch_size / config.optimizer.lr_batch_size if config.optimizer.lr_batch_size else 1


def _autocast(config: Config, device: torch.device) -> torch.autocast:
    dtype = {"none": None, "float16": torch.float16, "bfloat16": torch.bfloat16}[config.amp]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


@torch.no_grad()
def _evaluate(task: Task, model: nn.Module, config: Config, place: Place) -> dict[str, float]:
    training = model.training
    model.eval()
    with _autocast(config, place.device):
        results = task.evaluate(model, place.device)
    model.train(training)
    return results


class Run:
    """One training run in one process."""

    def __init__(self, task: Task, config: Config, place: Place):
        self.task, self.config, self.place = task, config, place
        if config.output is None:
            raise ValueError("output is missing: give output=/path/to/a/folder for the run")
        if (config.epochs is None) == (config.iterations is None):
            raise ValueError("give the run's length as either epochs or iterations, got "
                             f"epochs {config.epochs} and iterations {config.iterations}")
        pieces = place.size * config.accumulate
        if config.batch_size % pieces:
            raise ValueError(f"batch_size must be a multiple of processes times accumulate, {place.size} x "
                             f"{config.accumulate}, got {config.batch_size}")
        self.folder = Path(config.output)
        state = self._claim_folder()

        self.data = task.train_data()
        if len(self.data) < config.batch_size:
            raise ValueError(f"the training data have {len(self.data)} items, fewer than one batch of {config.batch_size}")
        self.steps_per_epoch = len(self.data) // config.batch_size
        self.steps = self._steps(config.epochs or config.iterations)

        seed_everything(config.seed)
        self.model = task.model()
        if state is None and config.checkpoint is not None:
            load_weights(self.model, config, start=True)
        # Kernels in the memory order of the features, and so their gradients; FSDP2 knows but one order.
        memory = torch.channels_last if config.parallel == "ddp" else torch.preserve_format
        self.model = synchronise_batch_norm(self.model.to(place.device, memory_format=memory), place).train()
        # (One operator on all tensors at once doesn't take sharded parameters and whole buffers.)
        self.ema = ModelEmaV3(self.model, config.ema, foreach=config.parallel == "ddp") if config.ema is not None else None
        if config.compile:
            self.model.compile()
        self.parallel = self.model
        if place.size > 1 and config.parallel == "ddp":
            self.parallel = replicate(self.model, place)
        elif place.size > 1:
            shard(self.model)
            if self.ema is not None:
                shard(self.ema.module)
        self.optimizer = make_optimizer(self.model, config)
        schedule = config.schedule
        self.schedule, _ = create_scheduler_v2(
            self.optimizer, schedule.name, num_epochs=self.steps, warmup_epochs=self._steps(schedule.warmup),
            decay_milestones=[self._steps(milestone) for milestone in schedule.milestones], decay_rate=schedule.decay_rate,
            warmup_lr=schedule.warmup_lr * _scale(config), min_lr=schedule.min_lr * _scale(config), step_on_epochs=False,
            updates_per_epoch=1)
        self.scaler = torch.amp.GradScaler(place.device.type, enabled=config.amp == "float16")
        self.step = 0
        if state is not None:
            self._restore(state)

    def _steps(self, time: float) -> int:
        """What the configuration gives in epochs or iterations, in iterations."""
        return round(time * (self.steps_per_epoch if self.config.epochs is not None else 1))

    # Folder and checkpoints.

    def _claim_folder(self) -> dict | None:
        """The state to go on from, if there is one; ValueError where the folder isn't ours to write in."""
        checkpoint = self.folder / "checkpoint.pt"
        if self.place.rank == 0:
            if self.folder.exists() and not self.folder.is_dir():
                raise ValueError(f"output {self.folder} is a file; it must be a folder")
            if not self.config.resume and (self.folder / "config.yaml").exists():
                raise ValueError(f"output {self.folder} holds another run already: resume=true goes on with it, or give the "
                                 "new run a folder of its own")
        state = read_state(checkpoint) if self.config.resume and checkpoint.exists() else None
        if state is not None:
            ours, theirs = as_dict(self.config), state["config"]
            for key in sorted(set(ours) - MAY_CHANGE):
                if theirs.get(key) != ours[key]:
                    raise ValueError(f"cannot resume {self.folder}: {key} was {theirs.get(key)} and is {ours[key]} now; a run "
                                     "goes on with what it was started with")
        return state

    def _save(self) -> None:
        state = {
            "config": as_dict(self.config), "step": self.step, "items": len(self.data),
            "model": get_model_state_dict(self.model, options=WHOLE),
            "ema": get_model_state_dict(self.ema.module, options=WHOLE) if self.ema is not None else None,
            "optimizer": get_optimizer_state_dict(self.model, self.optimizer, options=WHOLE),
            "scaler": self.scaler.state_dict(),
        }
        if self.place.rank == 0:
            write_atomically(self.folder / "checkpoint.pt", state)

    def _restore(self, state: dict) -> None:
        if state["items"] != len(self.data):
            raise ValueError(f"cannot resume {self.folder}: the training data had {state['items']} items and have "
                             f"{len(self.data)} now")
        # The optimizer first: what it hasn't seen yet, it makes in a step of size zero.
        set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"], options=WHOLE)
        set_model_state_dict(self.model, state["model"], options=WHOLE)
        if self.ema is not None:
            set_model_state_dict(self.ema.module, state["ema"], options=WHOLE)
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    # The loop.

    def run(self) -> dict[str, float]:
        config, place = self.config, self.place
        evaluate_every, checkpoint_every = (
            max(1, self._steps(every)) if every is not None else self.steps_per_epoch
            for every in (config.evaluate_every, config.checkpoint_every))
        pieces = range(place.rank * config.accumulate, (place.rank + 1) * config.accumulate)
        keys = BatchKeys(len(self.data), config.batch_size, pieces, place.size * config.accumulate, config.seed, self.step,
                         self.steps)
        batches = load(self.data, keys, self.task.collate, config)
        with Log(self.folder, config, self.step, self.steps, place.rank == 0) as log, StopSignals() as stop:
            losses, since, began = [], self.step, time.perf_counter()
            while self.step < self.steps:
                losses.append(self._train_step(batches, pieces))
                self.step += 1
                log.bar.update()
                evaluates, saves = self.step % evaluate_every == 0, self.step % checkpoint_every == 0
                if not (evaluates or saves or self.step % config.log_every == 0 or self.step == self.steps):
                    continue
                values, stopped = self._agree(losses, stop.received)
                speed = (self.step - since) * config.batch_size / (time.perf_counter() - began)
                log.losses(self.step, values | {"lr": self.optimizer.param_groups[0]["lr"], "items_per_second": speed})
                if saves or stopped or self.step == self.steps:
                    self._save()
                if stopped and self.step < self.steps:
                    log.say(f"stopped after iteration {self.step} of {self.steps}; resume=true goes on from there")
                    sys.exit(128 + signal.SIGTERM)
                if evaluates and self.step < self.steps:
                    self._evaluate(log)
                losses, since, began = [], self.step, time.perf_counter()
            return self._evaluate(log)

    def _train_step(self, batches: Iterator, pieces: range) -> dict[str, Tensor]:
        config, device = self.config, self.place.device
        if self.schedule is not None:
            self.schedule.step_update(self.step)
        mean = {}
        for piece in pieces:
            batch = tree_map_only(Tensor, lambda tensor: tensor.to(device, non_blocking=True), next(batches))
            seed_step(config.seed, self.step, piece)
            with accumulating(self.parallel, more=piece != pieces[-1]):
                with _autocast(config, device):
                    losses = {name: loss / config.accumulate for name, loss in self.task.loss(self.parallel, batch).items()}
                self.scaler.scale(sum(losses.values())).backward()
            for name, loss in losses.items():
                mean[name] = mean.get(name, 0) + loss.detach()
        if config.optimizer.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model, self.step + 1)
        return mean

    def _agree(self, losses: list[dict[str, Tensor]], stopped: bool) -> tuple[dict[str, float], bool]:
        """The mean losses over iterations and processes, and whether any process was asked to stop."""
        names = list(losses[0])
        values = torch.stack([torch.stack([loss[name] for loss in losses]).mean() for name in names])
        *values, stopped = average(torch.cat([values, values.new_tensor([stopped])]).double()).tolist()
        if not math.isfinite(sum(values)):
            raise ValueError(f"the loss is not finite before iteration {self.step}: {dict(zip(names, values))}; a lower "
                             "optimizer.lr, a longer schedule.warmup or a lower optimizer.clip_grad may help")
        return {"loss": sum(values), **(dict(zip(names, values)) if len(names) > 1 else {})}, stopped > 0

    def _evaluate(self, log: Log) -> dict[str, float]:
        results = _evaluate(self.task, self.ema.module if self.ema is not None else self.model, self.config, self.place)
        log.results(self.step, results)
        return results


class StopSignals:
    """Remembers SIGTERM and SIGINT instead of dying from them."""

    received = False

    def __enter__(self) -> StopSignals:
        self.before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _receive(self, number, frame) -> None:
        self.received = True

    def __exit__(self, *exception) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Log:
    """A progress bar, `log.jsonl` and TensorBoard's events, of the first process; of the others nothing."""

    def __init__(self, folder: Path, config: Config, step: int, steps: int, writes: bool):
        self.file, self.board = None, None
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(OmegaConf.structured(config), folder / "config.yaml")
            # What a killed run logged after its last checkpoint comes again.
            path = folder / "log.jsonl"
            rows = path.read_text().splitlines() if path.exists() else []
            path.write_text("".join(f"{row}\n" for row in rows if _step(row) <= step))
            self.file, self.board = path.open("a", buffering=1), SummaryWriter(str(folder), purge_step=step + 1)
        self.bar = tqdm(total=steps, initial=step, dynamic_ncols=True, disable=None if writes else True)

    def __enter__(self) -> Log:
        return self

    def losses(self, step: int, values: dict[str, float]) -> None:
        self.bar.set_postfix(loss=f"{values['loss']:.4g}", items_per_second=f"{values['items_per_second']:.4g}")
        self._write(step, "train", values)

    def results(self, step: int, values: dict[str, float]) -> None:
        self._write(step, "evaluation", values)
        self.say(f"after iteration {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def say(self, line: str) -> None:
        if self.file is not None:
            self.bar.write(line)

    def _write(self, step: int, kind: str, values: dict[str, float]) -> None:
        if self.file is not None:
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in values.items():
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def __exit__(self, *exception) -> None:
        self.bar.close()
        if self.file is not None:
            self.file.close()
            self.board.close()


def _step(row: str) -> float:
    """Of a line of the log; the last may be cut short."""
    try:
        return json.loads(row)["step"]
    except json.JSONDecodeError:
        return math.inf
