"""Which items make which batch, and where their random numbers come from: from (seed, epoch, item) and (seed, step) alone, not
from what was drawn before. That is why a resumed run equals an uninterrupted one, and several processes equal one."""

import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .config import Config


def _seed(*key: int) -> None:
    numbers = np.random.SeedSequence(key).generate_state(4)
    random.seed(numbers.tobytes())
    np.random.seed(numbers)


def _torch_seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def seed_everything(*key: int) -> None:
    """Seeds Python's, NumPy's and torch's generators, on all devices, from a few integers."""
    _seed(*key)
    torch.manual_seed(_torch_seed(*key))


def seed_step(seed: int, step: int, piece: int) -> None:
    """Seeds for a piece of a step's batch: Python and NumPy as for the whole batch, torch for the piece.

    So mixup, which draws from NumPy, treats the whole batch alike, and drop path, which draws from torch, drops other paths
    in every piece.
    """
    _seed(seed, step)
    torch.manual_seed(_torch_seed(seed, step, piece))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Random numbers of the key's own within, and afterwards as if nothing had been drawn."""
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    _seed(*key)
    torch.default_generator.manual_seed(_torch_seed(*key))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])


class SeededItems(Dataset):
    """A data set whose items are asked for by (epoch, index), and draw from (seed, epoch, index).

    A ValueError or FileNotFoundError is returned, not raised: it reaches the training process as it is, from workers too.
    """

    def __init__(self, data: Dataset, seed: int):
        self.data, self.seed, self.epoch = data, seed, None

    def __getitem__(self, key: tuple[int, int]):
        epoch, index = key
        if epoch != self.epoch and hasattr(self.data, "set_epoch"):
            self.data.set_epoch(epoch)
        self.epoch = epoch
        with seeded(self.seed, epoch, index):
            try:
                return self.data[index]
            except (ValueError, FileNotFoundError) as error:
                return error


class BatchKeys:
    """The keys of one process's pieces of the batches of steps `start` to `stop`.

    Every epoch is shuffled by (seed, epoch), and what doesn't fill its last batch is left out. Of each batch, positions i and
    B - 1 - i go to the same piece, in mirrored places: mixup pairs those, so that it pairs the same items in however many
    pieces.
    """

    def __init__(self, length: int, batch_size: int, pieces: range, count: int, seed: int, start: int, stop: int):
        self.length, self.batch_size, self.pieces, self.count = length, batch_size, pieces, count
        self.seed, self.start, self.stop = seed, start, stop

    def __len__(self) -> int:
        return (self.stop - self.start) * len(self.pieces)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        mirrored = [position for pair in zip(range(self.batch_size), reversed(range(self.batch_size)))
                    for position in pair][:self.batch_size]
        size = self.batch_size // self.count
        places = [sorted(mirrored[piece * size:(piece + 1) * size]) for piece in self.pieces]
        steps, shuffled = self.length // self.batch_size, None
        for step in range(self.start, self.stop):
            epoch, position = divmod(step, steps)
            if shuffled is None or position == 0:
                shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.length).tolist()
            for piece in places:
                yield [(epoch, shuffled[position * self.batch_size + place]) for place in piece]


class _Collate:
    """Of a task, unless one of the items is an error."""

    def __init__(self, collate: Callable):
        self.collate = collate

    def __call__(self, items: list):
        return next((item for item in items if isinstance(item, Exception)), None) or self.collate(items)


def _begin_worker(worker: int) -> None:
    # torchrun and terminals signal workers too, which must serve until the training process has stopped in its own time;
    # they end with it, however it ends.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def load(data: Dataset, batches: Iterable[list[tuple[int, int]]], collate: Callable, config: Config) -> Iterator:
    """Batches of items, given their keys (epoch, index). Raises what went wrong with an item."""
    loader = DataLoader(SeededItems(data, config.seed), batch_sampler=batches, collate_fn=_Collate(collate),
                        num_workers=config.workers, worker_init_fn=_begin_worker, pin_memory=torch.cuda.is_available())
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch


def evaluation_batches(data: Dataset, config: Config, collate: Callable) -> Iterator[tuple[object, int]]:
    """This process's batches of a data set, and how many items at the head of each count.

    Every process gets as many batches of the same sizes as the others, which sharded models need; where the items don't
    divide evenly, a share ends with a repeated item that doesn't count. All together count every item once.
    """
    rank, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    places = range(rank, -(-len(data) // processes) * processes, processes)
    size = config.evaluation_batch_size
    batches = [places[i:i + size] for i in range(0, len(places), size)]
    keys = [[(0, min(place, len(data) - 1)) for place in batch] for batch in batches]
    counts = [sum(place < len(data) for place in batch) for batch in batches]
    shown = tqdm(zip(load(data, keys, collate, config), counts), "evaluation", len(keys), leave=False, dynamic_ncols=True,
                 disable=True if rank else None)
    yield from shown
