#!/usr/bin/env bash
# scikit-image's random walker gives a flat picture to the first label alone
#
# Versions:  scikit-image 0.26.0, scipy 1.17.1, numpy 2.4.6
# Expected:  seeds in two opposite corners of a constant picture divide it between them by distance, as they do if one pixel
#            differs a little.
# Behaviour: differences are divided by the picture's standard deviation, so on a constant one all edge weights are NaN;
#            what is left of the equations has no meaning, and every pixel but the other seed goes to label 1. numpy warns
#            of a division, the function returns.
# Seen:      pixels of labels 1 and 2, of 64: constant 63, 1; with one pixel off by 0.001: 28, 36
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet scikit-image==0.26.0 scipy==1.17.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import numpy as np
from skimage.segmentation import random_walker

seeds = np.zeros((8, 8), int)
seeds[0, 0], seeds[-1, -1] = 1, 2
flat = np.full((8, 8), 0.5)
almost = flat.copy()
almost[0, 7] += 0.001
counts = {}
for name, picture in ("flat", flat), ("almost", almost):
    labels = random_walker(picture, seeds, beta=1)
    counts[name] = [int((labels == label).sum()) for label in (1, 2)]
print("pixels of labels 1 and 2:", counts)
assert counts["flat"] == [63, 1] and min(counts["almost"]) > 24
PY
