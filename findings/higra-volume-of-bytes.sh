#!/usr/bin/env bash
# Higra's volumes of an 8-bit picture's max-tree are wrong, those of its min-tree are right
#
# Versions:  higra 0.6.13, numpy 2.4.6
# Expected:  attribute_volume is the sum over a node's pixels of their distance in grey levels from the node's parent: the
#            same whether the picture is stored as uint8 or float64, and the same for a max-tree as for the min-tree of the
#            inverted picture.
# Behaviour: heights of nodes are differences of altitudes in the picture's own type. A max-tree's parents are lower, so
#            these are negative and wrap in uint8; the absolute value comes after that. No error, no warning; extinction
#            values and filters by volume follow.
# Seen:      the root's volume: 20146 as uint8, 590 as float64, 590 for the min-tree of the inverted picture as uint8
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


def volume(build, values):
    tree, altitudes = build(hg.get_4_adjacency_graph(values.shape), values)
    return hg.attribute_volume(tree, altitudes)[tree.root()].item()


wrong = volume(hg.component_tree_max_tree, picture)
right = volume(hg.component_tree_max_tree, picture.astype(np.float64))
mirrored = volume(hg.component_tree_min_tree, 255 - picture)
print(f"volume of the max-tree's root: uint8 {wrong}, float64 {right}; min-tree of the inverted picture {mirrored}")
assert right == mirrored != wrong
PY
