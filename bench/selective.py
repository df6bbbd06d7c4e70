"""The selective scan beside what it replaces: `python -m bench.selective`. Times are medians, on as many threads as torch
uses; extra memory is what the process grew by at its peak, in a process of its own."""

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

import torch

import treescan


def arguments(batch, channels, length, states, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    A = -torch.arange(1.0, states + 1).repeat(channels, 1)
    tensors = (normal(batch, channels, length), normal(batch, channels, length) - 3, A, normal(batch, states, length),
               normal(batch, states, length))
    return tuple(tensor.requires_grad_() for tensor in tensors)


def causal_tree(batch, length, window=3, seed=0):
    """Parents drawn from the tokens before."""
    generator = torch.Generator().manual_seed(seed)
    back = torch.randint(1, window + 1, (batch, length), generator=generator)
    return treescan.Tree.from_parents((torch.arange(length) - back).clamp(min=0))


def fused(u, delta, A, B, C, tree, direction="down"):
    return treescan.selective_tree_scan(u, delta, A, B, C, tree, delta_softplus=True, direction=direction)


def materialised(u, delta, A, B, C, tree, direction="down"):
    """With decays and inputs of all states in memory, as the original has them."""
    step = torch.nn.functional.softplus(delta)
    decay = torch.exp(step[:, :, None] * A[:, :, None])
    drive = (step * u)[:, :, None] * B[:, None]
    h = treescan.tree_scan(drive.flatten(1, 2), decay.flatten(1, 2), tree, direction=direction)
    return (h.unflatten(1, A.shape) * C[:, None]).sum(2)


def there_and_back(scan, inputs, tree, direction="down"):
    y = scan(*inputs, tree, direction)
    torch.autograd.grad(y, inputs, y.detach())


def seconds(*calls, rounds=7):
    """The median of each; they take turns."""
    taken = [[] for _ in calls]
    for turn in range(rounds + 1):
        for times, call in zip(taken, calls):
            start = perf_counter()
            call()
            if turn:
                times.append(perf_counter() - start)
    return [median(times) for times in taken]


def peak():
    """Megabytes that this process had at most. (getrusage's figure would start at the parent's.)"""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def extra_memory(which, *sizes):
    """Megabytes at the peak of one there and back, beyond what the inputs take, in this process."""
    inputs, tree = arguments(*sizes), causal_tree(1, sizes[2])
    there_and_back(SCANS[which], arguments(1, 1, 8, 1), causal_tree(1, 8))
    before = peak()
    there_and_back(SCANS[which], inputs, tree)
    return peak() - before


SCANS = {"fused": fused, "materialised": materialised}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", nargs=5, metavar=("SCAN", "B", "D", "L", "N"), help="print the extra memory of one scan")
    parser.add_argument("--transformers", action="store_true", help="compare with transformers' Mamba instead")
    options = parser.parse_args()
    if options.memory:
        print(extra_memory(options.memory[0], *map(int, options.memory[1:])))
        return
    print(f"{torch.get_num_threads()} threads, {treescan.build_info()['instruction_set']}")
    if options.transformers:
        compare_with_transformers()
        return
    for direction in ("down", "up", "both"):
        inputs, tree = arguments(2, 192, 4096, 16), causal_tree(1, 4096)
        ours, theirs = seconds(lambda: there_and_back(fused, inputs, tree, direction),
                               lambda: there_and_back(materialised, inputs, tree, direction), rounds=2)
        print(f"(2, 192, 4096), 16 states, {direction}, there and back: {1e3 * ours:.0f} ms, materialised {1e3 * theirs:.0f} ms, "
              f"{theirs / ours:.1f} times")
    inputs = arguments(2, 192, 4096, 1)
    w = torch.rand_like(inputs[0]).requires_grad_()

    def plain(u, w, tree):
        y = treescan.tree_scan(u, w, tree, direction="down")
        torch.autograd.grad(y, (u, w), y.detach())

    ours, theirs, scan = seconds(lambda: there_and_back(fused, inputs, tree), lambda: there_and_back(materialised, inputs, tree),
                                 lambda: plain(inputs[0], w, tree))
    print(f"(2, 192, 4096), 1 state, down, there and back: {1e3 * ours:.1f} ms, materialised {1e3 * theirs:.1f} ms, "
          f"{theirs / ours:.1f} times; tree_scan alone {1e3 * scan:.1f} ms")
    for which, *sizes in (("fused", 2, 192, 4096, 16), ("materialised", 2, 192, 4096, 16), ("fused", 1, 64, 65536, 16)):
        command = [sys.executable, "-m", "bench.selective", "--memory", which, *map(str, sizes)]
        megabytes = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"{which} {tuple(sizes)}, there and back: {megabytes:.0f} MiB extra")


def compare_with_transformers() -> None:
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    mixer = MambaMixer(MambaConfig(hidden_size=96, state_size=16, use_mambapy=False), layer_idx=0)
    x, tree = torch.randn(1, 1024, 96), treescan.Tree.from_parents((torch.arange(1024)[None] - 1).clamp(min=0))

    def ours(x):
        u, z = mixer.in_proj(x).transpose(1, 2).chunk(2, 1)
        u = mixer.act(mixer.conv1d(u)[..., :1024])
        delta, B, C = mixer.x_proj(u.transpose(1, 2)).split(
            [mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size], -1)
        delta = (mixer.dt_proj.weight @ delta.transpose(1, 2))
        y = treescan.selective_tree_scan(u, delta, -torch.exp(mixer.A_log.float()), B.transpose(1, 2), C.transpose(1, 2),
                                         tree, mixer.D, z, mixer.dt_proj.bias, True)
        return mixer.out_proj(y.transpose(1, 2))

    torch.testing.assert_close(ours(x), mixer(x))
    for name, run in (("there", lambda f: f(x)), ("there and back", lambda f: f(x).sum().backward())):
        with torch.set_grad_enabled(name != "there"):
            mine, theirs = seconds(lambda: run(ours), lambda: run(mixer), rounds=3)
        print(f"Mamba mixer, 1,024 tokens, {name}: {1e3 * mine:.1f} ms, transformers {1e3 * theirs:.1f} ms, {theirs / mine:.0f} times")


if __name__ == "__main__":
    main()
