"""Detection: sizes of models, COCO's format and its pitfalls, its measures on cases done by hand, a short training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision.transforms import v2

from grootv.composites import write_coco
from grootv.config import load_config
from grootv.detection import MEASURES, CocoInstances, Detection, as_results, coco_measures, mask_rcnn
from grootv.engine import train

from training import run

CONFIGS = Path(__file__).parents[1] / "configs" / "detection"
SMALL = ["model.channels=16", "model.depths=[1,1,1,1]", "model.drop_path_rate=0", "shortest=[64]", "longest=128",
         "anchor_scale=4", "pyramid=32", "hidden=128", "rcnn.box_batch_size_per_image=32",
         "rcnn.rpn_post_nms_top_n_train=100", "rcnn.rpn_post_nms_top_n_test=50", "workers=0", "device=cpu"]


@pytest.mark.parametrize("name, parameters", [
    ("grootv_tiny", 48_651_921), ("grootv_small", 69_623_665), ("grootv_base", 107_939_121)])
def test_parameters_with_91_classes(name, parameters):
    with torch.device("meta"):
        model = mask_rcnn(name, 91)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_pyramid_has_five_levels_for_odd_sizes():
    model = mask_rcnn(channels=8, depths=(1, 1, 1, 1), pyramid=16, hidden=8)
    levels = model.backbone(torch.randn(1, 3, 70, 101))
    sizes = [tuple(level.shape[1:]) for level in levels.values()]
    assert sizes == [(16, 18, 26), (16, 9, 13), (16, 5, 7), (16, 3, 4), (16, 2, 2)]


def test_a_backbone_of_other_strides_is_refused():
    with pytest.raises(ValueError, match=r"strides 4, 8, 16 and 32, got 'resnet18'"):
        mask_rcnn("resnet18")


# Data.


def annotation(number, image, category, box, segmentation=None, **more):
    left, top, width, height = box
    polygon = [left, top, left + width, top, left + width, top + height, left, top + height]
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "area": width * height,
            "iscrowd": 0, "segmentation": segmentation or [polygon]} | more


def crowd_mask(height, width, rows):
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[rows] = 1
    encoded = coco_mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


@pytest.fixture
def coco(tmp_path):
    """Two pictures of 40 x 60, categories 7 and 90: the first has a square of each, a crowd and a box of no width; the
    second has nothing."""
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 40, "width": 60},
                   {"id": 3, "file_name": "b.png", "height": 40, "width": 60}],
        "categories": [{"id": 90, "name": "late"}, {"id": 7, "name": "early"}],
        "annotations": [annotation(1, 5, 90, (10, 5, 20, 20)), annotation(2, 5, 7, (40, 10, 10, 10)),
                        annotation(3, 5, 7, (0, 30, 60, 10), crowd_mask(40, 60, slice(30, 40)), iscrowd=1),
                        annotation(4, 5, 7, (3, 3, 0, 9))],
    }
    (tmp_path / "val2017").mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    for name in "ab":
        noise.save(tmp_path / "val2017" / f"{name}.png")
    write(tmp_path, content)
    return tmp_path, content


def write(folder, content):
    path = folder / "annotations" / "instances_val2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def read(folder, **options):
    return CocoInstances(folder / "val2017", folder / "annotations" / "instances_val2017.json", **options)


def test_objects_of_a_picture(coco):
    data = read(coco[0])
    assert data.image_ids == [3, 5] and data.categories == [7, 90]
    image, target = data[1]
    assert image.shape == (3, 40, 60) and image.dtype == torch.uint8
    # Neither the crowd nor the box without a width; labels in the order of identifiers, not of the file.
    assert target["labels"].tolist() == [2, 1] and target["image_id"] == 5
    assert target["boxes"].tolist() == [[10, 5, 30, 25], [40, 10, 50, 20]]
    assert target["masks"].sum((1, 2)).tolist() == [400, 100] and target["masks"][0, 5:25, 10:30].all()


def test_a_picture_without_objects(coco):
    data = read(coco[0])
    _, target = data[0]
    assert target["boxes"].shape == (0, 4) and target["labels"].shape == (0,) and target["masks"].shape == (0, 40, 60)
    assert read(coco[0], keep_empty=False).image_ids == [5]


def test_boxes_masks_and_picture_are_transformed_alike(coco):
    flip_and_scale = v2.Compose([v2.RandomHorizontalFlip(1), v2.Resize((80, 120), antialias=False)])
    image, target = read(coco[0], transform=flip_and_scale)[1]
    assert image.shape == (3, 80, 120)
    assert target["boxes"].tolist() == [[60, 10, 100, 50], [20, 20, 40, 40]]
    assert target["masks"][0, 10:50, 60:100].all() and target["masks"][0].sum() == 1600


def test_training_with_and_without_objects(coco):
    model = mask_rcnn(num_classes=3, shortest=64, longest=96, channels=8, depths=(1, 1, 1, 1), pyramid=16, hidden=8)
    items = [read(coco[0], transform=v2.ToDtype(torch.float32, scale=True))[i] for i in (0, 1)]
    for batch in (items, items[:1]):
        losses = model([image for image, _ in batch], [target for _, target in batch])
        assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
        sum(losses.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_what_is_wrong_with_the_data_has_a_message(coco):
    folder, content = coco

    def refused(error, match, change=None, read_item=False):
        changed = json.loads(json.dumps(content))
        written = change(changed) if change else None
        write(folder, written if isinstance(written, str) else changed)
        with pytest.raises(error, match=match):
            data = read(folder)
            if read_item:
                data[1]

    refused(ValueError, "not in COCO's format for instances: no 'categories'", lambda c: c.pop("categories") and None)
    refused(ValueError, "not in COCO's format for instances: no 'bbox'",
            lambda c: c["annotations"][0].pop("bbox") and None)
    refused(ValueError, "is not in COCO's format", lambda c: "{")
    refused(ValueError, "is not in COCO's format", lambda c: "[1, 2]")
    refused(ValueError, "annotation 1 is of an image or a category that isn't listed",
            lambda c: c["annotations"][0].update(category_id=8))
    refused(ValueError, "annotation 2 lacks a box or a mask", lambda c: c["annotations"][1].update(segmentation=[]))
    refused(FileNotFoundError, "lists c.png, which is not in", lambda c: c["images"][0].update(file_name="c.png"))
    refused(ValueError, r"a.png has 40 x 60 pixels \(height x width\), but .* says 60 x 40",
            lambda c: c["images"][0].update(height=60, width=40), read_item=True)
    path = folder / "val2017" / "a.png"
    path.write_bytes(path.read_bytes()[:900])
    refused(ValueError, "cannot read the picture .*a.png", read_item=True)
    (folder / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        read(folder)


def test_another_number_of_categories_than_configured(coco):
    config = load_config(CONFIGS / "mask_rcnn_grootv_tiny_1x.yaml", [*SMALL, f"data={coco[0]}"])
    with pytest.raises(ValueError, match="classes must be the number of categories in .*, which is 2, got 80"):
        Detection(config)._validation


# COCO's measures.


def found(image, category, box, score):
    mask = np.zeros((40, 60), np.uint8, order="F")
    left, top, width, height = box
    mask[top:top + height, left:left + width] = 1
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score,
            "segmentation": coco_mask.encode(mask)}


def test_what_is_found_exactly_scores_one(coco):
    results = [found(5, 90, (10, 5, 20, 20), 0.9), found(5, 7, (40, 10, 10, 10), 0.2)]
    content = coco[1]
    content["annotations"].pop()  # what has no width can't be found, but counts
    write(coco[0], content)
    data = read(coco[0])
    measures = coco_measures(data.coco, results, data.image_ids)
    assert list(measures) == [f"{kind}/{name}" for kind in ("box", "mask") for name in MEASURES]
    for kind in ("box", "mask"):
        assert [measures[f"{kind}/{name}"] for name in ("AP", "AR100", "APs")] == pytest.approx([1, 1, 1])
        assert measures[f"{kind}/APm"] == measures[f"{kind}/APl"] == -1


def test_one_of_two_found_and_a_box_that_overlaps_by_two_thirds(coco):
    content = coco[1]
    content["annotations"] = [annotation(1, 5, 90, (10, 5, 20, 20)), annotation(2, 3, 90, (10, 5, 20, 20)),
                              annotation(3, 5, 7, (40, 10, 10, 10))]
    write(coco[0], content)
    data = read(coco[0])
    # Of category 90 one of two: precision 1 at the 51 of 101 recalls up to 0.5, at every threshold. Of category 7 a box
    # of 8 of the 10 columns, IoU 0.8, from whose mask two rows are missing as well, IoU 0.64.
    results = [found(5, 90, (10, 5, 20, 20), 0.9), found(5, 7, (40, 10, 8, 10), 0.8)]
    results[1]["segmentation"] = found(5, 7, (40, 10, 8, 8), 0.8)["segmentation"]
    measures = coco_measures(data.coco, results, data.image_ids)
    half = 51 / 101
    assert measures["box/AP50"] == measures["box/AP75"] == pytest.approx((half + 1) / 2)
    assert measures["box/AP"] == pytest.approx((half + 0.7) / 2)  # 0.5 to 0.8 are seven of ten thresholds
    assert measures["mask/AP"] == pytest.approx((half + 0.3) / 2)  # 0.5, 0.55, 0.6
    assert measures["mask/AP75"] == pytest.approx(half / 2)
    assert measures["box/AR100"] == pytest.approx((0.5 + 0.7) / 2)


def test_what_is_found_in_a_crowd_is_no_error(coco):
    content = coco[1]
    content["annotations"].pop()
    write(coco[0], content)
    data = read(coco[0])
    exact = [found(5, 90, (10, 5, 20, 20), 0.9), found(5, 7, (40, 10, 10, 10), 0.2)]
    in_crowd, elsewhere = found(5, 7, (5, 31, 8, 8), 0.8), found(5, 7, (5, 3, 8, 8), 0.8)
    assert coco_measures(data.coco, [*exact, in_crowd], data.image_ids)["box/AP"] == pytest.approx(1)
    assert coco_measures(data.coco, [*exact, elsewhere], data.image_ids)["box/AP"] == pytest.approx(0.75)


def test_nothing_found(coco):
    data = read(coco[0])
    measures = coco_measures(data.coco, [], data.image_ids)
    assert measures["box/AP"] == measures["mask/AR100"] == 0


def test_results_of_a_models_output(coco):
    masks = torch.zeros(2, 1, 40, 60)
    masks[0, 0, 5:25, 10:30], masks[1, 0, 10:20, 40:50] = 0.9, 0.51
    output = {"boxes": torch.tensor([[10., 5, 30, 25], [40, 10, 50, 20]]), "labels": torch.tensor([2, 1]),
              "scores": torch.tensor([0.75, 0.5]), "masks": masks}
    first, second = json.loads(json.dumps(as_results(5, output, [7, 90])))
    assert (first["category_id"], first["bbox"], first["score"]) == (90, [10, 5, 20, 20], 0.75)
    assert second["category_id"] == 7 and coco_mask.decode(second["segmentation"])[10:20, 40:50].all()
    nothing = {key: value[:0] for key, value in output.items()}
    assert as_results(5, nothing, [7, 90]) == []


# Configurations.


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_the_rows_of_the_papers_table(name):
    once, thrice = (load_config(CONFIGS / f"mask_rcnn_grootv_{name}_{times}x.yaml") for times in (1, 3))
    assert (once.epochs, once.schedule.milestones, once.shortest) == (12, [8, 11], [800])
    assert (thrice.epochs, thrice.schedule.milestones, thrice.shortest) == (36, [27, 33], list(range(480, 801, 32)))
    for config in (once, thrice):
        assert config.model == {"name": f"grootv_{name}"} and config.optimizer.lr == 1e-4 and config.batch_size == 16
        assert round(config.schedule.warmup * (117_266 // config.batch_size)) == 500
    with torch.device("meta"):
        model = Detection(once).model()
    assert model.roi_heads.box_predictor.cls_score.out_features == 81
    assert (model.transform.min_size, model.transform.max_size) == ((800,), 1333)


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="longest no less than any of them, got \\[64, 800\\] and 640"):
        load_config(CONFIGS / "mask_rcnn_grootv_tiny_1x.yaml", ["shortest=[64,800]", "longest=640"])
    config = load_config(CONFIGS / "mask_rcnn_grootv_tiny_1x.yaml", [*SMALL, "rcnn.sides=3"])
    with pytest.raises(ValueError, match="rcnn must hold arguments of torchvision's MaskRCNN, got sides"):
        Detection(config).model()


# A short training, as a user would start it.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detection")
    write_coco(folder / "coco", 300, val_count=41, most=1, classes=("0", "1"))
    config = load_config(CONFIGS / "mask_rcnn_grootv_tiny_1x.yaml", [
        *SMALL, f"data={folder}/coco", f"output={folder}/run", "classes=2", "epochs=null", "iterations=250",
        "batch_size=4", "optimizer.lr=3e-3", "optimizer.clip_grad=5", "schedule.name=cosine", "schedule.warmup=20",
        "evaluate_every=1000"])
    return config, train(Detection(config), config)


def test_two_kinds_of_digits_are_found(trained):
    _, results = trained
    assert results["box/AP50"] > 0.3 and results["mask/AP50"] > 0.3


def test_a_checkpoint_evaluates_alike_in_one_process_and_in_two(trained):
    config, results = trained
    expected = [f"{name} {value:.4f}" for name, value in results.items()]
    folder = Path(config.output)
    for processes in (0, 2):
        ran = run("evaluate", folder / "config.yaml", f"checkpoint={folder}/checkpoint.pt", processes=processes,
                  timeout=500)
        assert [" ".join(line.split()) for line in ran.stdout.splitlines()] == expected, ran.stderr
