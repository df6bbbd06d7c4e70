#!/usr/bin/env bash
# OpenCV's L0 smoothing writes over its float32 input, and its mean and range drift away
#
# Versions:  opencv-contrib-python-headless 5.0.0.93, numpy 2.4.6
# Expected:  ximgproc.l0Smooth(src) leaves src as it is. By the method's formula the mean of the picture, the transform's
#            zeroth coefficient, stays, and values hardly leave their range (-0.0002 to 1.0000 by twenty lines of numpy).
# Behaviour: a float32 picture holds the result afterwards, too; other types are copied. For noise, whatever the type, the
#            mean moves and floats in [0, 1] come out several times beyond it; on pictures it is less, but as wrong.
# Seen:      float32: input changed, mean 0.50 to 1.12, range -3.3 to 5.6; bytes: mean 126 to 159, input kept
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet opencv-contrib-python-headless==5.0.0.93 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import cv2
import numpy as np

noise = np.random.default_rng(0).random((32, 40, 3)).astype(np.float32)
for picture in noise, (noise * 255).astype(np.uint8):
    before = picture.copy()
    smooth = cv2.ximgproc.l0Smooth(picture)
    written = not np.array_equal(before, picture)
    print(f"{smooth.dtype}: input changed: {written}, mean {before.mean():.2f} to {smooth.mean():.2f},", end=" ")
    print(f"range {before.min():.2f}, {before.max():.2f} to {smooth.min():.2f}, {smooth.max():.2f}")
    assert written == (picture.dtype == np.float32) and abs(smooth.mean() / before.mean() - 1) > 0.1
    assert picture.dtype == np.uint8 or smooth.max() > 2
PY
