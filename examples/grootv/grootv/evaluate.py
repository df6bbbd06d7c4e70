"""Evaluates a checkpoint: python -m grootv.evaluate CONFIG data=FOLDER checkpoint=FILE [weights=model] [key=value ...]

Under torchrun, the processes share the pictures.
"""

import os

from .config import Config, command, task_class
from .engine import evaluate


def main(config: Config) -> None:
    results = evaluate(task_class(config.task)(config), config)
    if os.environ.get("RANK", "0") == "0":
        for name, value in results.items():
            print(f"{name:>12}  {value:.4f}")


if __name__ == "__main__":
    command(main, __doc__)
