#!/usr/bin/env bash
# Bamba counts positions from 0 again after a cache, unless it is told them
#
# Versions:  transformers 5.23.0, torch 2.13.0 (the plain code path, on the CPU)
# Expected:  tokens fed one by one with past_key_values get the positions that follow the cached ones, and so the logits of
#            one pass over all tokens, as in Granite's hybrid, Falcon-H1 and transformers' other models.
# Behaviour: without position_ids every call numbers its tokens from 0, cache or not, so attention's rotations are wrong in
#            a loop of one's own. generate() gives position_ids and is right, which hides it. No error.
# Seen:      largest difference from one pass: bamba 2e-02 without position_ids, 3e-07 with; granitemoehybrid 7e-07 without
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/env/bin/python" - <<'PY'
import torch
from transformers import AutoModelForCausalLM, BambaConfig, GraniteMoeHybridConfig

sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=16, num_attention_heads=2, num_key_value_heads=2)
sizes["pad_token_id"] = 0
mamba = dict(mamba_n_heads=4, mamba_d_head=8, mamba_d_state=4, mamba_n_groups=1, mamba_chunk_size=4, num_hidden_layers=2)
bamba = BambaConfig(**sizes, **mamba, attn_layer_indices=[1])
granite = GraniteMoeHybridConfig(
    **sizes, **mamba, layer_types=["mamba", "attention"], num_local_experts=0, position_embedding_type="rope"
)
off = {}
for config in bamba, granite:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens, positions = torch.randint(1, 50, (1, 12)), torch.arange(12)[None]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)  # fresh weights are so small that all logits are alike
        right = model(tokens).logits[:, 6:]
        for told in False, True:
            output = model(tokens[:, :6], use_cache=True)
            steps = []
            for i in range(6, 12):
                where = {"position_ids": positions[:, i : i + 1]} if told else {}
                output = model(tokens[:, i : i + 1], past_key_values=output.past_key_values, use_cache=True, **where)
                steps.append(output.logits)
            off[config.model_type, told] = (torch.cat(steps, 1) - right).abs().max().item()
for (name, told), difference in off.items():
    print(f"{name}, position_ids {'given' if told else 'left out'}: off by {difference:.0e}")
assert off.pop(("bamba", False)) > 1e-3 and max(off.values()) < 1e-5
PY
