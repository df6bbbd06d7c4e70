#!/usr/bin/env bash
# The published experiment: a pretrained Mamba (mamba-130m-hf to mamba-1.4b-hf) fine-tuned on Alpaca and evaluated on the
# paper's seven tasks, beside the same model as it was. Chain instead of causal gives the row of LoRA without trees.
#
#     scripts/alpaca.sh MODEL_FOLDER ALPACA_JSON OUTPUT_FOLDER [chain|original|causal] [arguments for grootl.finetune ...]
#
# Run it again to go on after an interruption. The tasks' data come from a hub, or from where it keeps what it has loaded.
# In the environment: PYTHON (python), PROCESSES (1) to train with, and for other tasks TASKS (grootl_paper), their DATA
# folder and LIMIT, how many documents of each.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 MODEL_FOLDER ALPACA_JSON OUTPUT_FOLDER [chain|original|causal] [arguments for grootl.finetune ...]" >&2
    exit 2
fi
model=$1 alpaca=$2 output=$3 mode=${4:-causal}
shift $(($# < 4 ? 3 : 4))
python=${PYTHON:-python} processes=${PROCESSES:-1}

evaluate() {
    [ -e "$3" ] || "$python" -m grootl.evaluate --model "$1" --mode "$2" --tasks ${TASKS:-grootl_paper} \
        ${DATA:+--data "$DATA"} ${LIMIT:+--limit "$LIMIT"} --output "$3"
}

mkdir -p "$output"
evaluate "$model" chain "$output/unadapted.json"
if [ ! -e "$output/merged/config.json" ]; then
    # Batches, epochs and the learning rate are ours: the published ones aren't at hand.
    launch=("$python" -m grootl.finetune)
    [ "$processes" = 1 ] || launch=("$python" -m torch.distributed.run --standalone --nproc_per_node="$processes" -m grootl.finetune)
    "${launch[@]}" --model "$model" --data "$alpaca" --mode "$mode" --output "$output/adapter" --resume --leave_out \
        --per_device_train_batch_size 8 --gradient_accumulation_steps 16 --num_train_epochs 3 --save_steps 100 "$@"
    "$python" -m grootl.merge --adapter "$output/adapter" --output "$output/merged"
fi
evaluate "$output/merged" "$mode" "$output/$mode.json"
