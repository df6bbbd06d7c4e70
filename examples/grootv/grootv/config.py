"""What a training run is made of: a YAML file over typed defaults, and `key=value` over both."""

import argparse
import pkgutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

TASKS = {
    "classification": "grootv.classification:Classification",
    "detection": "grootv.detection:Detection",
    "segmentation": "grootv.segmentation:Segmentation",
}


@dataclass
class Optimizer:
    """Of timm's factory; no decay for norms, biases and what the model's `no_weight_decay()` names.

    The learning rate is `lr` for `lr_batch_size` items and grows linearly with the global batch; with `lr_batch_size: null`
    it is `lr`, whatever the batch.
    """

    name: str = "adamw"
    lr: float = 5e-4
    lr_batch_size: Optional[int] = 512
    weight_decay: float = 0.05
    momentum: float = 0.9
    clip_grad: Optional[float] = 5.0


@dataclass
class Schedule:
    """Of timm's factory, followed from step to step. Times are in the unit of the run's length: epochs, or iterations.

    `decay_rate` is the factor of "multistep" and "step", and the power of "poly". `warmup_lr` and `min_lr` scale with the
    batch as the learning rate does.
    """

    name: str = "cosine"
    warmup: float = 20
    warmup_lr: float = 5e-7
    min_lr: float = 5e-6
    milestones: list[float] = field(default_factory=list)
    decay_rate: float = 0.1


@dataclass
class Config:
    """What all tasks have in common. A task's own class adds to it.

    task: which of TASKS.
    model: `name` in timm's registry, and keyword arguments of that model.
    data: the data set's folder.
    output: the run's folder: configuration, checkpoint, log.jsonl, TensorBoard's events. All machines must see it.
    resume: whether to go on with the run in `output`, if there is one.
    checkpoint: a file whose weights training starts from, or that is evaluated.
    weights: which of a checkpoint's weights are evaluated or exported: "ema" where it has them, or "model".
    seed: of the weights and of all that is drawn.
    epochs, iterations: the run's length; one of them.
    batch_size: items in a step, over all processes.
    accumulate: into how many pieces each process cuts its share of a batch, to save memory.
    evaluation_batch_size: items in a batch of evaluation, per process.
    amp: "none", "float16" or "bfloat16".
    compile: whether torch.compile makes kernels of the model.
    ema: the decay of the weights' moving average, null for none.
    parallel: "ddp", a copy of the model in each process, or "fsdp2", a piece of it.
    workers: processes that prepare data, per training process.
    device: "auto" for a GPU if there is one, "cuda" or "cpu".
    evaluate_every, checkpoint_every: how often, in the unit of the run's length; after each epoch unless given. The end of a
        run is always evaluated and kept.
    log_every: iterations per line of the log; also how soon a run stops when it is asked to by SIGTERM.
    """

    task: str = "???"
    model: dict[str, Any] = field(default_factory=lambda: {"name": "grootv_tiny"})
    data: Optional[str] = None
    output: Optional[str] = None
    resume: bool = False
    checkpoint: Optional[str] = None
    weights: str = "ema"
    seed: int = 0
    epochs: Optional[float] = None
    iterations: Optional[int] = None
    batch_size: int = 1024
    accumulate: int = 1
    evaluation_batch_size: int = 64
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    amp: str = "none"
    compile: bool = False
    ema: Optional[float] = None
    parallel: str = "ddp"
    workers: int = 8
    device: str = "auto"
    evaluate_every: Optional[float] = None
    checkpoint_every: Optional[float] = None
    log_every: int = 20

    def __post_init__(self):
        for name, known in (("task", tuple(TASKS)), ("weights", ("ema", "model")), ("amp", ("none", "float16", "bfloat16")),
                            ("parallel", ("ddp", "fsdp2")), ("device", ("auto", "cuda", "cpu"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name, least in (("seed", 0), ("batch_size", 1), ("accumulate", 1), ("evaluation_batch_size", 1),
                            ("workers", 0), ("log_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("epochs", "iterations", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.model.get("name"):
            raise ValueError("model.name is missing: name a model of timm's registry, grootv_tiny for one")


def task_class(name: str) -> type:
    """The class of a task; its attribute `Config` is the dataclass of its configuration."""
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {name!r}")
    return pkgutil.resolve_name(TASKS[name])


def _read(path: Path):
    """A YAML file over the one beside it that its `base` names."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration {path}")
    try:
        own = OmegaConf.load(path)
    except YAMLError as error:
        raise ValueError(f"the configuration {path} is not YAML: {' '.join(str(error).split())}") from error
    if not OmegaConf.is_dict(own):
        raise ValueError(f"the configuration {path} must be a mapping of keys to values")
    base = own.pop("base", None)
    return OmegaConf.merge(_read(path.parent / base), own) if base else own


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """A configuration from a YAML file and `key=value` strings, as an object of its task's `Config`.

    A file may name another beside it, `base: recipe.yaml`, and then holds what differs.

    Raises FileNotFoundError without the file, ValueError for what isn't a configuration: unknown keys, values of another type.
    """
    try:
        for override in overrides:
            if "=" not in override:
                raise ValueError(f"expected key=value, got {override!r}")
        given = OmegaConf.merge(_read(Path(path)), OmegaConf.from_dotlist(list(overrides)))
        if "task" not in given:
            raise ValueError(f"the configuration {path} has no key task; it must be one of {', '.join(TASKS)}")
        schema = OmegaConf.structured(task_class(given.task).Config)
        return OmegaConf.to_object(OmegaConf.merge(schema, given))
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        where = f"{error.full_key}: " if error.full_key else ""
        if error.parent_node is not None and "not in" in reason:
            reason = f"unknown key; the keys here are {', '.join(map(str, error.parent_node))}"
        raise ValueError(f"the configuration {path}: {where}{reason}") from error


def as_dict(config: Config) -> dict[str, Any]:
    """The configuration in dicts, lists and plain values."""
    return OmegaConf.to_container(OmegaConf.structured(config))


def command(main: Callable[..., None], description: str) -> None:
    """Runs a command line `CONFIG [key=value ...]`; what its user can mend is one line without a traceback."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value",
                        help="over the file's, dots for nesting: optimizer.lr=1e-3")
    arguments = parser.parse_args()
    try:
        main(load_config(arguments.config, arguments.overrides))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
