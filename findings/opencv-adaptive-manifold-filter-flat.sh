#!/usr/bin/env bash
# OpenCV's adaptive manifold filter turns pictures of one or two colours into NaN, 8-bit ones into black
#
# Versions:  opencv-contrib-python-headless 5.0.0.93, numpy 2.4.6
# Expected:  an edge-preserving filter, a weighted mean, leaves a constant picture as it is, as OpenCV's bilateral filter
#            does; and two flat halves stay as they are.
# Behaviour: ximgproc.amFilter has no answer where the guide doesn't vary, or differs only between flat regions: floats
#            become NaN everywhere, bytes 0. No error.
# Seen:      constant 0.5: NaN; constant 100 in 8 bits: 0; halves of 0.5 and 0.7: all NaN; bilateralFilter: as given
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet opencv-contrib-python-headless==5.0.0.93 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import cv2
import numpy as np

constant = np.full((16, 16, 3), 0.5, np.float32)
halves = constant.copy()
halves[:, 8:] = 0.7
for name, picture, spoilt in (
    ("constant", constant, np.nan),
    ("constant of bytes", np.full((16, 16, 3), 100, np.uint8), 0),
    ("two halves", halves, np.nan),
):
    manifold = cv2.ximgproc.amFilter(picture, picture, 16, 0.2)
    bilateral = cv2.bilateralFilter(picture, 5, 0.01, 4)
    print(f"{name}: {np.unique(picture)}; amFilter {np.unique(manifold)}, bilateralFilter {np.unique(bilateral)}")
    assert np.array_equal(manifold, np.full_like(picture, spoilt), equal_nan=True) and np.allclose(bilateral, picture)
PY
