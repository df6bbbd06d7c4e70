#!/usr/bin/env bash
# AutoBackbone takes a local folder for a name on the hub
#
# Versions:  transformers 5.23.0, torch 2.13.0
# Expected:  a folder that save_pretrained of a backbone wrote is read by
#            AutoBackbone.from_pretrained(folder), as it is by the backbone's own class, and as AutoModel
#            reads models.
# Behaviour: AutoBackbone asks the hub whether a repository of that name exists, and takes a timm checkpoint
#            if it doesn't; no one looks at the disk. A relative folder's name is sent away, an absolute one
#            is refused as no repository's name.
# Seen:      relative: OfflineModeIsEnabled, Cannot reach .../api/models/saved; absolute: HFValidationError,
#            Repo id must be ...
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 env/bin/python - <<'PY'
from pathlib import Path

from transformers import AutoBackbone, ConvNextBackbone, ConvNextConfig

saved = Path("saved")
ConvNextBackbone(ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2)).save_pretrained(saved)
print("its own class:", type(ConvNextBackbone.from_pretrained(saved)).__name__)
for folder, expected in (saved, "OfflineModeIsEnabled"), (saved.resolve(), "HFValidationError"):
    try:
        AutoBackbone.from_pretrained(str(folder))
        raise SystemExit("AutoBackbone reads it now")
    except Exception as error:
        print("AutoBackbone:", type(error).__name__, error)
        assert type(error).__name__ == expected
PY
