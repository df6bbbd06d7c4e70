# UperNet on GrootV-T in mmsegmentation 1, over the files of its own package. Not run here.
# GrootV-S: variant="grootv_small", in_channels=[96, 192, 384, 768], auxiliary in_channels=384.
_base_ = ["mmseg::_base_/models/upernet_r50.py", "mmseg::_base_/datasets/ade20k.py", "mmseg::_base_/default_runtime.py",
          "mmseg::_base_/schedules/schedule_160k.py"]
custom_imports = dict(imports=["grootv_backbone"], allow_failed_imports=False)

data_preprocessor = dict(size=(512, 512))
model = dict(
    data_preprocessor=data_preprocessor, pretrained=None,
    backbone=dict(_delete_=True, type="GrootVStages", variant="grootv_tiny", checkpoint=None),
    decode_head=dict(in_channels=[80, 160, 320, 640], num_classes=150),
    auxiliary_head=dict(in_channels=320, num_classes=150))
train_dataloader = dict(batch_size=2)  # on 8 GPUs
optim_wrapper = dict(_delete_=True, type="OptimWrapper",
                     optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.05),
                     paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
param_scheduler = [dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
                   dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=160000)]
