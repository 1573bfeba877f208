"""Whole runs on a made-up character set: the notebook's figures, augmentation, and no validation set."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CLASSES = 12
SMALL = ("data=characters", "data.path=set.mat", "model=char_net_v1", "trainer.max_epochs=1")
NOTEBOOK = {"test", "train_clean", "test_augmented", "train_augmented"}


@pytest.fixture
def characters(tmp_path: Path) -> Path:
    """Twelve classes of five and two images: a bright block at a place of its own, on black."""
    random = np.random.default_rng(0)
    images = random.integers(0, 40, (CLASSES, 7, 28, 28), np.uint8)
    for label in range(CLASSES):
        row, column = 2 + 6 * (label // 4), 2 + 6 * (label % 4)
        images[label, :, row : row + 5, column : column + 5] += 200
    scipy.io.savemat(tmp_path / "set.mat", {"train": images[:, :5], "test": images[:, 5:]})
    return tmp_path


def only_run(folder: Path) -> tuple[Path, dict]:
    (path,) = folder.glob("outputs/*/*/result.json")
    return path.parent, json.loads(path.read_text())


def test_the_result_has_the_notebooks_four_accuracies_and_top5(main, characters: Path):
    assert main(*SMALL, "augment=shift7")[0] == 0
    run, record = only_run(characters)
    metrics = record["metrics"]
    assert {f"{part}/{name}" for part in NOTEBOOK for name in ("acc", "top5", "loss")} <= metrics.keys()
    assert all(metrics[f"{part}/acc"] <= metrics[f"{part}/top5"] <= 1 for part in NOTEBOOK)
    assert record["images"] == {"train": 48, "val": 12, "test": 24}
    summary = pd.read_csv(run.parent / "summary.csv")
    assert summary["test_augmented/acc"].tolist() == [pytest.approx(metrics["test_augmented/acc"])]
    assert "augmented test %" in (run.parent / "summary.md").read_text()
    table = pd.read_csv(run / "per_class.csv")
    assert sum(table["right"].tolist()) / sum(table["images"].tolist()) == pytest.approx(metrics["test/acc"])


def test_augmentation_is_drawn_into_the_folder_and_for_tensorboard(main, characters: Path):
    assert main(*SMALL, "augment=strong", figures=True)[0] == 0
    run, _ = only_run(characters)
    with Image.open(run / "augment.png") as picture:
        assert picture.width > 1000
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    assert {"train/augmented", "train/images"} <= set(events.Tags()["images"])


def test_without_augmentation_there_is_no_picture_of_it(main, characters: Path):
    assert main(*SMALL)[0] == 0
    run, _ = only_run(characters)
    assert not (run / "augment.png").exists()


@pytest.mark.long
@pytest.mark.parametrize("augment", ["strong", "mixup"])
def test_random_augmentation_repeats_with_its_seed(main, characters: Path, augment: str):
    losses = []
    for seed, name in ((0, "one"), (0, "two"), (1, "three")):
        assert main(*SMALL, f"augment={augment}", f"augment.seed={seed}", f"name={name}")[0] == 0
        (result,) = characters.glob(f"outputs/{name}/*/result.json")
        losses.append(json.loads(result.read_text())["metrics"]["test/loss"])
    assert losses[0] == losses[1] != losses[2]


def test_all_images_train_when_none_is_held_out(main, characters: Path):
    code, errors, _ = main(
        *SMALL, "data.val_fraction=0", "augment=affine", "augment.clean_epochs=1", "trainer.max_epochs=2"
    )
    assert code == 0
    assert "Traceback" not in errors
    run, record = only_run(characters)
    assert record["images"] == {"train": 60, "val": 0, "test": 24}
    assert record["chosen_epoch"] == record["epochs"] == 2
    saved = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    assert saved["handwriting"]["class_names"] == [str(label) for label in range(CLASSES)]
    assert "| – |" in (run.parent / "summary.md").read_text()


def test_a_callback_that_needs_validation_is_refused_without_it(main, characters: Path):
    stop = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss}"
    code, errors, _ = main(*SMALL, "data.val_fraction=0", stop)
    assert code == 2
    assert "EarlyStopping monitors val/loss, but data.val_fraction=0 leaves no validation set" in errors


@pytest.mark.long
def test_redundant_classes_are_kept_dropped_or_merged(main, characters: Path):
    assert main("-m", *SMALL, "data.redundant_groups=[[0,3],[1,2,11]]", "data.redundant=keep,drop,merge")[0] == 0
    for path in characters.glob("outputs/*/*/result.json"):
        record = json.loads(path.read_text())
        images = {"keep": (48, 24), "drop": (36, 18), "merge": (48, 24)}[record["settings"]["data"]["redundant"]]
        assert (record["images"]["train"], record["images"]["test"]) == images
    table = pd.read_csv(characters / "outputs" / "characters" / "summary.csv")
    assert dict(zip(table["data.redundant"], table["parameters"], strict=True)) == {
        "keep": 60_576 + 8_320 + 16_512 + 129 * 12,
        "drop": 60_576 + 8_320 + 16_512 + 129 * 9,
        "merge": 60_576 + 8_320 + 16_512 + 129 * 9,
    }
