"""Loading the original's checkpoints."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from .model import VARIANTS, GrootV

# Where trainers of this family put the weights beside optimizer and epoch, in the order in which they are looked for.
ENTRIES = ("model", "state_dict", "module", "model_ema", "state_dict_ema", "ema")
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")


# All that a file may name and have: what puts tensors together again.
_REBUILDING = {("collections", "OrderedDict"), ("torch", "Size"), ("torch", "device"),
               *(("torch._utils", name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"))}


class _Inert:
    """Stands in for all else that a file holds, such as a trainer's configuration: takes any data and does nothing."""

    def __init__(self, *arguments, **options):
        pass

    def _ignore(self, *arguments):
        pass

    __setstate__ = __setitem__ = append = extend = add = _ignore


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        is_type = module in ("torch", "torch.storage") and (
            name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype))
        return super().find_class(module, name) if is_type or (module, name) in _REBUILDING else _Inert


# What torch.load takes as a pickle module. Its own weights_only refuses files with anything but tensors in them.
_DATA_PICKLE = SimpleNamespace(__name__="data", Unpickler=_DataUnpickler,
                               load=lambda file, **options: _DataUnpickler(file, **options).load())


def load_original(path: str | Path, model: nn.Module | None = None, *, entry: str | None = None) -> GrootV:
    """A GrootV with the weights of one of the original's checkpoints, or of one made by `torch.save` of a state dict.

    The file holds a state dict, or a dict with one among `ENTRIES`; "module." in front of the names is taken off. Where
    names begin with "backbone.", as in checkpoints of detectors, that part is taken, and the model has no classifier.
    The file is read as data: nothing in it is executed.

    Arguments:
        path: of the file.
        model: a GrootV, or a module that holds one, such as timm's `features_only=True` or a detector. Every parameter
            must be in the file with its shape; only what classifies may be left over, where the model doesn't classify.
            None makes a model to fit, in evaluation mode.
        entry: which entry of the file to take, such as "model_ema"; the first of `ENTRIES` if None.

    Returns the GrootV. Raises FileNotFoundError, and ValueError for a file that isn't a checkpoint, one of another
    model or a classifier of another size, and for values that aren't finite.

    >>> import tempfile
    >>> file = f"{tempfile.mkdtemp()}/small.pth"
    >>> torch.save({"model": GrootV(16, (1, 1, 2, 1), num_classes=10).state_dict()}, file)
    >>> load_original(file).num_classes
    10
    """
    path = Path(path)
    state = _without_wrappers(_weights(path, entry))
    found = _shape_of(state, path)
    if model is None:
        network = _fitting(state, found)
    else:
        networks = [module for module in model.modules() if isinstance(module, GrootV)]
        if len(networks) != 1:
            raise ValueError(f"model must be a GrootV or hold one, got {type(model).__name__} with {len(networks)}")
        network, = networks
        _check_fit(network, found, path)
    wanted = network.state_dict()
    state = {name: value for name, value in state.items()
             if name in wanted or not name.startswith(("head.", "conv_head."))}
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        both = " and " if missing and extra else ""
        raise ValueError(f"{path} doesn't fit the model: "
                         f"{_some('it lacks', missing)}{both}{_some('it has besides', extra)}")
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            raise ValueError(f"{path} has {name} of shape {tuple(value.shape)}, the model {tuple(wanted[name].shape)}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{path} has values in {name} that aren't finite")
    network.load_state_dict(state)
    return network


def _weights(path: Path, entry: str | None) -> dict[str, Tensor]:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ValueError(f"path must be a file, got the folder {path}")
    try:
        content = torch.load(path, map_location="cpu", pickle_module=_DATA_PICKLE, weights_only=False)
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(f"{path} isn't a checkpoint that torch can read, or it is damaged: "
                         f"{str(error).splitlines()[0] if str(error) else type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a state dict, got {type(content).__name__}")
    if entry is not None and entry not in content:
        raise ValueError(f"{path} has no entry {entry!r}, only {', '.join(map(repr, list(content)[:10]))}")
    name = entry or next((name for name in ENTRIES if isinstance(content.get(name), dict)), None)
    weights = content if name is None else content[name]
    if not isinstance(weights, dict) or not weights or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()):
        raise ValueError(f"{path} must hold a state dict, or one under {', '.join(ENTRIES)}; it has the entries "
                         f"{', '.join(map(repr, list(content)[:10]))}")
    return weights


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {_WRAPPERS.sub("", name): value for name, value in state.items()}
    inner = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    return inner or state


def _shape_of(state: dict[str, Tensor], path: Path) -> dict:
    """What the checkpoint's GrootV was made with, as far as its weights tell."""
    matches = map(re.compile(r"levels\.(\d+)\.blocks\.(\d+)\.TreeSSM\.A_logs$").match, state)
    blocks = [match.groups() for match in matches if match]
    stem = state.get("patch_embed.conv1.weight"), state.get("patch_embed.conv2.weight")
    if not blocks or any(weight is None or weight.ndim != 4 for weight in stem):
        raise ValueError(f"{path} holds another model than GrootV: {_some('its weights are', list(state))}")
    depths = [0] * (1 + max(int(level) for level, _ in blocks))
    for level, block in blocks:
        depths[int(level)] = max(depths[int(level)], int(block) + 1)
    first = "levels.0.blocks.0."
    return dict(channels=stem[1].shape[0], depths=tuple(depths), in_chans=stem[0].shape[1],
                d_state=state[first + "TreeSSM.A_logs"].shape[-1], layer_scale=first + "gamma1" in state,
                num_classes=state["head.weight"].shape[0] if "head.weight" in state else 0)


def _fitting(state: dict[str, Tensor], found: dict) -> GrootV:
    fc1 = state.get("levels.0.blocks.0.mlp.fc1.weight")
    told = found | dict(mlp_ratio=4.0 if fc1 is None else fc1.shape[0] / found["channels"],
                        layer_scale=1.0 if found["layer_scale"] else None)
    network = GrootV(**VARIANTS.get(_published(found), {}) | told).eval()
    if "conv_head.0.weight" not in state:
        network.drop_head()
    return network


def _check_fit(network: GrootV, found: dict, path: Path) -> None:
    first = network.levels[0].blocks[0]
    has = dict(channels=network.feature_info[0]["num_chs"], depths=tuple(len(level.blocks) for level in network.levels),
               in_chans=network.in_chans, d_state=first.TreeSSM.A_logs.shape[1], layer_scale=first.gamma1 is not None)
    for name, value in has.items():
        if value != found[name]:
            published = _published(found)
            raise ValueError(f"{path} is of a GrootV with {name}={found[name]}, the model has {name}={value}"
                             f"{f': the file is a {published}' if published else ''}")
    if network.num_classes and network.num_classes != found["num_classes"]:
        raise ValueError(f"{path} classifies {found['num_classes']} classes, the model {network.num_classes}: load it "
                         f"into one with num_classes={found['num_classes']}, then call its "
                         f"reset_classifier({network.num_classes})")


def _published(found: dict) -> str | None:
    """The variant of that size, if there is one."""
    return next((name for name, variant in VARIANTS.items()
                 if (variant["channels"], variant["depths"]) == (found["channels"], found["depths"])), None)


def _some(what: str, names: list[str]) -> str:
    return f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" if names else ""
