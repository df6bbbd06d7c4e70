#!/usr/bin/env bash
# Mamba goes on from its cache with several tokens at once: other logits, nobody says so
#
# Versions:  transformers 5.23.0, torch 2.13.0 (the plain code path, on the CPU)
# Expected:  logits of tokens 6 to 11, fed at once after a cache of tokens 0 to 5, equal those of one pass
#            over all 12 up to rounding, as they do where the tokens are fed one by one, or an error that says
#            one token at a time is meant.
# Behaviour: in Mamba and FalconMamba the convolution goes on from the cache and the state starts again from
#            0. Mamba-2 is right. Whoever feeds a second turn of a chat or checks drafted tokens (speculative
#            decoding) gets another model.
# Seen:      largest differences, one by one / at once: mamba 5e-6 / 3.1, falcon_mamba 3e-6 / 1.1, mamba2 7e-6
#            / 2e-6
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/env/bin/python" - <<'PY'
import torch
from transformers import AutoModelForCausalLM, FalconMambaConfig, Mamba2Config, MambaConfig

sizes = dict(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=2)
mamba2 = Mamba2Config(**sizes, num_heads=4, head_dim=8, n_groups=1, chunk_size=4)
configs = [MambaConfig(**sizes), FalconMambaConfig(**sizes), mamba2]
large = {}
for config in configs:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.randint(1, 50, (1, 12))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)  # fresh weights are so small that all logits are alike
        right = model(tokens).logits[:, 6:]
        cache = model(tokens[:, :6], use_cache=True).cache_params
        at_once = model(tokens[:, 6:], cache_params=cache, use_cache=True).logits
        cache = model(tokens[:, :6], use_cache=True).cache_params
        steps = [model(tokens[:, i : i + 1], cache_params=cache, use_cache=True).logits for i in range(6, 12)]
    by_one, by_six = ((logits - right).abs().max().item() for logits in (torch.cat(steps, 1), at_once))
    print(f"{config.model_type}: one by one {by_one:.0e}, at once {by_six:.1e}")
    assert by_one < 1e-4
    large[config.model_type] = by_six > 0.1
assert large == {"mamba": True, "falcon_mamba": True, "mamba2": False}, large
PY
