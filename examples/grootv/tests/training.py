"""What the tests of training share: a folder of digits, a configuration that takes seconds, commands in own processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from grootv.classification import Augmentation, ClassificationConfig
from grootv.config import Optimizer, Schedule

PACKAGE = Path(__file__).parent.parent
# Each operation in one thread, so that several processes don't fight for the cores.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TINY = {"name": "grootv_tiny", "channels": 8, "depths": [1, 1, 1, 1], "drop_path_rate": 0.0}


def write_digits(folder: Path, train: int, val: int, classes: int = 10) -> Path:
    """scikit-learn's digits at 32x32 in an ImageNet-style folder, so many of each class."""
    digits = load_digits()
    for label in range(classes):
        for i, picture in enumerate(digits.images[digits.target == label][:train + val]):
            path = folder / ("train" if i < train else "val") / f"digit{label}" / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.uint8(picture * 255 / 16)).resize((32, 32), Image.Resampling.BICUBIC).save(path)
    return folder


def configuration(data: Path, output: Path, **changes) -> ClassificationConfig:
    """Of a small model that learns digits; augmented as little as digits allow."""
    return ClassificationConfig(**dict(
        task="classification", data=str(data), output=str(output), model=dict(TINY), batch_size=16, epochs=2, workers=0,
        device="cpu", picture_size=32, log_every=1, ema=0.9, optimizer=Optimizer(lr=4e-3, lr_batch_size=None),
        schedule=Schedule(warmup=0.2),
        augmentation=Augmentation(auto_augment=None, scale=[0.8, 1.0], flip=0.0, color_jitter=0.0, random_erasing=0.0,
                                  mixup=0.0, cutmix=0.0, crop_pct=1.0)) | changes)


def command(module: str, config: Path, *overrides: str, processes: int = 0) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes else []
    return [sys.executable, *launcher, "-m", f"grootv.{module}", str(config), *overrides]


def run(*arguments, timeout: float = 120, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments, **options), env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout)


def losses(output: Path) -> list[float]:
    """Of every iteration, from the log."""
    rows = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]
