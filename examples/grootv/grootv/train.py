"""Trains what a configuration describes: python -m grootv.train CONFIG data=FOLDER output=FOLDER [key=value ...]

On several GPUs or machines: torchrun --nproc-per-node 8 -m grootv.train CONFIG ...; `batch_size` is the global one.
"""

from .config import Config, command, task_class
from .engine import train


def main(config: Config) -> None:
    train(task_class(config.task)(config), config)


if __name__ == "__main__":
    command(main, __doc__)
