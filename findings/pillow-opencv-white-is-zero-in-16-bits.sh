#!/usr/bin/env bash
# A grey TIFF in which 0 is white is turned round at 8 bits and not at 16, by Pillow and by OpenCV
#
# Versions:  pillow 13.0.0, opencv-contrib-python-headless 5.0.0.93, tifffile 2026.3.3, numpy 2.4.6
# Expected:  PhotometricInterpretation WhiteIsZero, which scanners and some microscopes write, means the same at any depth:
#            a reader gives light pixels high values, or it always gives the stored ones, as tifffile does.
# Behaviour: both invert 8-bit samples and hand out 16-bit ones as stored, with nothing to tell them from BlackIsZero. The
#            same scan saved at the two depths becomes a picture and its negative.
# Seen:      stored 0, a quarter, the maximum: 8 bits 255, 191, 0; 16 bits 0, 16384, 65535, by both
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pillow==13.0.0 opencv-contrib-python-headless==5.0.0.93 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import cv2
import numpy as np
import tifffile
from PIL import Image

for depth in np.uint8, np.uint16:
    top = np.iinfo(depth).max
    stored = np.array([[0, top // 4 + 1, top]], depth)
    tifffile.imwrite("scan.tif", stored, photometric="miniswhite")
    read = {"Pillow": np.asarray(Image.open("scan.tif")), "OpenCV": cv2.imread("scan.tif", cv2.IMREAD_UNCHANGED)}
    print(np.dtype(depth), "stored", stored, "read", {library: values.tolist() for library, values in read.items()})
    expected = top - stored if depth == np.uint8 else stored
    assert all(np.array_equal(values, expected) for values in read.values())
PY
