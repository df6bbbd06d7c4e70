"""Exports a trained classifier: python -m grootv.export CONFIG checkpoint=FILE output=FOLDER writes FOLDER/model.pt2.

The file holds a graph of torch.export for any number of pictures of the configured size, with its weights. A Python process
that has treescan runs it without this package:

    import torch, treescan
    model = torch.export.load("model.pt2").module()
    logits = model(torch.zeros(1, 3, 224, 224))

A plain C++ program can't, so far. The graph calls treescan's operators, and it is treescan's Python package that registers
them with torch, since its native library is free of torch: libtorch alone finds no such operator. Compiling the graph ahead of
time by AOTInductor doesn't change that: its code runs in Python with treescan imported, and without it stops at "Could not
find schema for treescan::edge_weights". A C++ program would have to embed Python, or to register the same operators over
treescan's C interface (treescan.h) itself; neither is here.
"""

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .config import Config, command, task_class
from .engine import load_weights, read_weights


def export(model: nn.Module, file: str | os.PathLike, picture_size: int = 224) -> None:
    """Writes `model`, in evaluation mode, as a torch.export archive for (B, 3, picture_size, picture_size), any B.

    Raises ValueError unless the name ends in .pt2.
    """
    if not str(file).endswith(".pt2"):
        raise ValueError(f"file must end in .pt2, got {file}")
    pictures = torch.zeros(2, 3, picture_size, picture_size)
    with torch.no_grad():
        program = torch.export.export(model.eval(), (pictures,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.export.save(program, file)


def main(config: Config) -> None:
    if config.task != "classification":
        raise ValueError(f"only classification is exported, got task {config.task}")
    for name in ("checkpoint", "output"):
        if getattr(config, name) is None:
            raise ValueError(f"{name} is missing: give checkpoint=/path/to/checkpoint.pt output=/path/to/a/folder")
    classes = len(read_weights(config)[0].get("head.bias", ()))
    config = replace(config, data=None, model={"num_classes": classes} | config.model)
    model = task_class(config.task)(config).model()
    load_weights(model, config)
    Path(config.output).mkdir(parents=True, exist_ok=True)
    file = Path(config.output, "model.pt2")
    export(model, file, config.picture_size)
    print(f"wrote {file}")


if __name__ == "__main__":
    command(main, __doc__)
