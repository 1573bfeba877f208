"""Every network for several characters learns 32 images by heart."""

import json
from pathlib import Path

import pytest

from handwriting.evaluate import main as evaluate

pytestmark = pytest.mark.long
FEW = ("data=street_demo", "data.images=32", "data.test_images=32", "data.val_fraction=0", "data.batch_size=8")
LONG = ("optim=adamw", "optim.lr=0.004", "scheduler=onecycle", "trainer.max_epochs=120", "trainer.gradient_clip_val=5")


@pytest.mark.parametrize(
    "model",
    [
        ("model=digit_heads", "model.max_length=6"),
        ("model=crnn",),
        ("model=detector",),
        ("model=ssdlite", "model.upsample=2"),
        ("model=detect_then_read", "model.crop_size=[32,80]"),
    ],
    ids=lambda model: model[0],
)
def test_every_model_learns_32_images_by_heart(main, tmp_path: Path, model: tuple[str, ...]):
    assert main(*FEW, *LONG, *model).code == 0
    (result,) = tmp_path.glob("outputs/street_demo/*/result.json")
    evaluate([str(result.parent), "split=train", f"out={tmp_path / 'trained'}"])
    (scores,) = json.loads((tmp_path / "trained" / "evaluation.json").read_text())["models"].values()
    assert scores["acc"] == 1
