#!/usr/bin/env bash
# fast-hdbscan rounds coordinates to float32: map coordinates in metres fall onto each other
#
# Versions:  fast-hdbscan 0.3.4, hdbscan 0.8.44, scikit-learn 1.9.1, numba 0.68.1, numpy 2.4.6
# Expected:  float64 points cluster alike wherever the origin lies, as they do with hdbscan, whose interface it shares.
# Behaviour: points go into float32, where neighbours at 5,000,000 (a northing in metres) are 0.5 apart, before the spanning
#            tree is built. Three heaps 0.1 m apart become noise; nobody says so. Subtracting the mean first helps.
# Seen:      clusters at an origin of 0 and of 5,000,000: hdbscan 3, 3; fast-hdbscan 3, 0
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet fast-hdbscan==0.3.4 hdbscan==0.8.44 scikit-learn==1.9.1 numpy==2.4.6 numba==0.68.1
"$folder/env/bin/python" -W ignore - <<'PY'
import fast_hdbscan
import hdbscan
import numpy as np

rng = np.random.default_rng(0)
points = np.concatenate([rng.normal(centre, 0.005, (50, 2)) for centre in ((0, 0), (0.1, 0), (0, 0.1))])
found = {}
for library in hdbscan, fast_hdbscan:
    found[library.__name__] = [
        len(set(library.HDBSCAN(min_cluster_size=10).fit(points + origin).labels_) - {-1}) for origin in (0, 5e6)
    ]
print("clusters at 0 and at 5,000,000:", found)
assert found["hdbscan"] == [3, 3] and found["fast_hdbscan"][0] == 3 != found["fast_hdbscan"][1]
PY
