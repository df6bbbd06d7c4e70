#!/usr/bin/env bash
# lm_eval's logits cache scores one text that is split at two points: the shorter continuation gets other tokens' logits
#
# Versions:  lm_eval 0.4.13, transformers 5.23.0, torch 2.13.0
# Expected:  log p("a blue hen" after "the red fox saw") is the same whether or not the same text is also
#            asked for with its split earlier, "fox saw a blue hen" after "the red".
# Behaviour: requests whose tokens are the same but for the last share one pass (logits_cache=True, which is
#            so unless one says otherwise). Its logits begin where the longest continuation does and aren't
#            cut for a shorter one, so these tokens are looked up at places too early. No error; alone, or
#            with logits_cache=False, the value is right.
# Seen:      together -48.826, -10.413; alone and without the cache -48.826, -24.918
set -euo pipefail
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 "lm_eval[hf]==0.4.13"
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/env/bin/python" - <<'PY'
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

words = "the red fox saw a blue hen <end>".split()
tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<end>"))
tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<end>", pad_token="<end>", unk_token="<end>")
torch.manual_seed(0)
end = len(words) - 1
config = GPT2Config(vocab_size=len(words), n_embd=16, n_layer=2, n_head=2, initializer_range=1.0, eos_token_id=end)
model = GPT2LMHeadModel(config)
pairs = [("the red", " fox saw a blue hen"), ("the red fox saw", " a blue hen")]


def scores(pairs, **options):
    harness = HFLM(pretrained=model.eval(), tokenizer=tokenizer, batch_size=1, device="cpu", **options)
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    return torch.tensor([score for score, _ in harness.loglikelihood(asked, disable_tqdm=True)])


together, alone, uncached = scores(pairs), torch.cat([scores([pair]) for pair in pairs]), scores(pairs, logits_cache=False)
print("together", together, "\nalone", alone, "\nwithout the cache", uncached)
torch.testing.assert_close(alone, uncached)
assert abs(together[0] - alone[0]) < 1e-4 and abs(together[1] - alone[1]) > 1
PY
