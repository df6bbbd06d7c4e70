# Mask R-CNN on GrootV-T in mmdet 3, over the files of its own package. Not run here.
# GrootV-S: variant="grootv_small", in_channels=[96, 192, 384, 768]. Three times as long: 36 epochs and sizes of
# 480 to 800, as in configs/detection/mask_rcnn_3x.yaml.
_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py", "mmdet::_base_/datasets/coco_instance.py",
          "mmdet::_base_/schedules/schedule_1x.py", "mmdet::_base_/default_runtime.py"]
custom_imports = dict(imports=["grootv_backbone"], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type="GrootVStages", variant="grootv_tiny", checkpoint=None),
    neck=dict(in_channels=[80, 160, 320, 640]))
train_dataloader = dict(batch_size=2)  # on 8 GPUs
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
                     paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
