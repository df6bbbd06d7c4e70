#!/usr/bin/env bash
# Higra accumulates 8-bit pictures in 8 bits: means fall below minima
#
# Versions:  higra 0.6.13, numpy 2.4.6
# Expected:  the mean of values between 180 and 255 over each node of a tree lies between its minimum and its maximum.
#            numpy's own sum and mean of 8-bit values are taken in wider types, and so is Higra's
#            attribute_mean_vertex_weights.
# Behaviour: accumulate_sequential keeps the type of what it is given for the sums behind Accumulators.mean, too, which wrap
#            at 256. Nothing is said. With the same picture as float64 all is right.
# Seen:      at the root: minimum 181, mean 85, maximum 253, sum 158; as float64: mean 218.4, sum 3486
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet higra==0.6.13 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import higra as hg
import numpy as np

picture = np.random.default_rng(0).integers(180, 256, (4, 4)).astype(np.uint8)
graph = hg.get_4_adjacency_graph(picture.shape)
tree, _ = hg.bpt_canonical(graph, hg.weight_graph(graph, picture, hg.WeightFunction.L1))


def root(values, accumulator):
    return hg.accumulate_sequential(tree, values, accumulator)[tree.root()].item()


bytes_, floats = (
    {a: root(values, getattr(hg.Accumulators, a)) for a in ("min", "mean", "max", "sum")}
    for values in (picture, picture.astype(np.float64))
)
print("root, 8 bits:", bytes_)
print("root, float64:", floats)
assert bytes_["mean"] < bytes_["min"] and bytes_["sum"] != picture.sum()
assert floats["min"] < floats["mean"] < floats["max"] and floats["sum"] == picture.sum()
PY
