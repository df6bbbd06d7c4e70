#!/usr/bin/env bash
# set_flush_denormal reaches one thread: one tensor is half flushed, half not
#
# Versions:  torch 2.13.0, two threads
# Expected:  after torch.set_flush_denormal(True), which training scripts set for speed, x * 1 of a tensor full of 1e-39 is
#            0 everywhere, whichever thread works on which part; the page of the function speaks of the CPU, not of threads.
# Behaviour: the mode is a register of the calling thread. Threads of the pool that are already running keep theirs, so an
#            element's value depends on its place in the tensor and on the number of threads. Equal numbers are equal no
#            more.
# Seen:      of 1,048,576 products with 1, 524,288 keep their value and the others are 0; with one thread all are 0
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import torch

torch.set_num_threads(2)
tiny = torch.full((2**20,), 1e-39)
kept = {}
kept["off"] = (tiny * 1).view(torch.int32).count_nonzero().item()  # starts the pool, too
torch.set_flush_denormal(True)
kept["on, two threads"] = (tiny * 1).view(torch.int32).count_nonzero().item()
torch.set_num_threads(1)
kept["on, one thread"] = (tiny * 1).view(torch.int32).count_nonzero().item()
print(f"products that aren't 0, of {len(tiny)}:", kept)
assert list(kept.values()) == [len(tiny), len(tiny) // 2, 0]
PY
