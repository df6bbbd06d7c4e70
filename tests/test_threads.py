"""Calls under load: from many threads and processes at once, across forks, while the interpreter ends, after Ctrl-C."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import treescan

WORK = """
import hashlib
import torch
import treescan

def digest(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 24, 15, 17, generator=generator).requires_grad_()
    weights = torch.rand(2, 24, 15, 17, generator=generator).requires_grad_()
    tree = treescan.build_tree(x.detach())
    y = treescan.tree_scan(x, weights, tree)
    u, delta = x.flatten(2), weights.flatten(2)
    A, B = -torch.rand(24, 3, generator=generator), torch.randn(2, 1, 3, 255, generator=generator)
    z = treescan.selective_tree_scan(u, delta, A, B, B, tree=tree)
    grads = torch.autograd.grad(y.square().sum() + z.square().sum(), (x, weights))
    tensors = (tree.parent, tree.order, y, z, *grads)
    return hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest()
"""
exec(WORK)


def run(code, *arguments, timeout=60, **options):
    """Runs a program of its own, which starts with `digest`."""
    program = WORK + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, **options
    )


@pytest.mark.parametrize("own_threads", [None, 3])
def test_many_threads(own_threads):
    """Results of calls at once are those of calls one after the other, and so are the messages of those that fail."""
    treescan.set_num_threads(own_threads)
    try:
        expected = [digest(seed) for seed in range(4)]  # noqa: F821

        def work(number):
            for round in range(4):
                seed = (number + round) % 4
                assert digest(seed) == expected[seed]  # noqa: F821
                with pytest.raises(ValueError, match=f"got {1000 + number}"):
                    treescan.Tree.from_parents(torch.tensor([[0, 1000 + number]], dtype=torch.int32))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        treescan.set_num_threads(None)


def test_many_processes():
    code = "import sys; print(digest(int(sys.argv[1])))"
    programs = [
        subprocess.Popen([sys.executable, "-c", WORK + code, str(seed % 2)], stdout=subprocess.PIPE, text=True)
        for seed in range(4)
    ]
    printed = [program.communicate(timeout=240)[0].strip() for program in programs]
    assert printed == [digest(0), digest(1)] * 2  # noqa: F821


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forks_while_others_compute():
    """Children of the main thread and of another, whose parent's other threads are inside calls."""
    result = run("""
        import os, signal, sys, threading, time
        treescan.set_num_threads(3)
        expected = digest(0)
        stop = threading.Event()
        wrong = []
        def compute():
            while not stop.is_set():
                if digest(0) != expected: wrong.append("a thread's result")
        def fork():
            for round in range(6):
                time.sleep(0.003 * round)
                child = os.fork()
                if child == 0:
                    signal.alarm(60)
                    treescan.set_num_threads(2 + round % 2)
                    # (The adjoint runs on autograd's threads, which torch forbids after a fork.)
                    x = torch.ones(2, 24, 6, 7)
                    tree = treescan.build_tree(x)
                    y = treescan.tree_scan(x, x / 2, tree)
                    same = torch.equal(y, treescan.tree_scan(x, x / 2, tree)) and tree.num_vertices == 42
                    os._exit(0 if same else 1)
                status = os.waitpid(child, 0)[1]
                if status: wrong.append(f"a child's status {status}")
        threads = [threading.Thread(target=compute) for _ in range(3)]
        for thread in threads: thread.start()
        fork()
        other = threading.Thread(target=fork)
        other.start()
        other.join()
        stop.set()
        for thread in threads: thread.join()
        sys.exit("; ".join(wrong) or 0)
    """)
    assert result.returncode == 0, result.stderr


def test_a_daemon_thread_at_the_end():
    """The interpreter ends while a thread is inside a call of the library's, or about to come back from one. (From NumPy: torch's
    functions, and so ours for torch, end the process there.)"""
    for delay in (0.0, 0.03):
        result = run(
            """
            import sys, threading, time
            import numpy as np
            import treescan.numpy
            started = threading.Event()
            def compute():
                x = np.random.default_rng(0).random((512, 512, 8), dtype=np.float32)
                tree = treescan.numpy.minimum_spanning_tree(x)
                while True:
                    treescan.numpy.tree_scan(x, x, tree)
                    started.set()
            threading.Thread(target=compute, daemon=True).start()
            started.wait()
            time.sleep(float(sys.argv[1]))
            """,
            delay,
        )
        assert result.returncode == 0 and result.stderr == "", (result.returncode, result.stderr)


def test_ctrl_c_during_a_call():
    """A call isn't broken off: KeyboardInterrupt comes when it returns, and the next call works."""
    x = torch.rand(1, 8, 700, 700)
    expected = treescan.tree_scan(x, x)
    main = threading.main_thread().ident
    interrupted = 0
    for _ in range(3):
        timer = threading.Timer(0.02, signal.pthread_kill, (main, signal.SIGINT))
        try:
            timer.start()
            while timer.is_alive() or not interrupted:
                treescan.tree_scan(x, x)
            timer.join()
            time.sleep(0.1)
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
    assert interrupted >= 1
    assert torch.equal(treescan.tree_scan(x, x), expected)


def test_subinterpreters_are_refused():
    """The module keeps state for the whole process and says so, in words, instead of crashing."""
    result = run("""
        try:
            import _interpreters as interpreters
        except ImportError:
            try:
                import _xxsubinterpreters as interpreters
            except ImportError:
                print("no subinterpreters")
                raise SystemExit
        code = '''
        import importlib.util
        import sys
        try:
            spec = importlib.util.spec_from_file_location("treescan._C", FILE)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        except ImportError as error:
            print("refused:", error, flush=True)
        '''
        import textwrap
        interpreter = interpreters.create()
        code = textwrap.dedent(code).replace("FILE", repr(treescan._C.__file__))
        problem = interpreters.run_string(interpreter, code)
        assert problem is None, problem
        # (torch's autograd refuses to work where there has been a subinterpreter.)
        x = torch.ones(1, 2, 3, 3)
        assert treescan.tree_scan(x, x).sum() == 2 * 81
    """)
    assert result.returncode == 0, result.stderr
    if "no subinterpreters" in result.stdout:
        pytest.skip("this Python has no subinterpreters")
    assert "refused:" in result.stdout and "interpreter" in result.stdout, result.stdout
