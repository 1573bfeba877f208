"""Training and test of networks for several characters: what is counted, and what is refused."""

import json
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.text import CharErrorRate

from handwriting.data.dataset import END, Sequences, characters_of
from handwriting.models.sequence_model import Outputs, SequenceModel, Transcript, vote
from handwriting.training.recognizer import Recognizer
from handwriting.utils.metrics import align, edits, sequence_confusion

TRUE = [(1, 2), (3,), (4, 5, 6), (0, 7), (8, 8)]
SAID = [(1, 2), (3, 3), (4, 6), (7, 0), (8, 8)]
TINY = ("data=street_demo", "data.images=60", "data.test_images=20", "model=detector", "trainer.max_epochs=2")
TINY += ("model.widths=[8,8,16]", "model.depths=[1,1,1]", "model.features=8", "data.val_fraction=0.5")


class Says(SequenceModel):
    """Says what it is told, whatever it sees; the images are numbered by their first pixel."""

    locates = True

    def __init__(self, said: list[tuple[int, ...]], boxes: Tensor):
        super().__init__()
        self.said, self.boxes = said, boxes
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Outputs:
        number = (images[:, 0, 0, 0] * 255).round().long()
        probabilities = torch.zeros(len(images), self.boxes.shape[1], 10)
        for row, place in enumerate(number.tolist()):
            for column, label in enumerate(self.said[place]):
                probabilities[row, column, label] = 0.9
        return {"number": number.float(), "boxes": self.boxes[number], "probabilities": probabilities}

    def loss(self, images: Tensor, targets: Sequences, criterion: nn.Module) -> tuple[Tensor, Outputs]:
        outputs = self(images)
        return outputs["number"].mean() + self.weight.sum(), outputs

    def decode(self, outputs: Outputs) -> list[Transcript]:
        return [Transcript(self.said[number], 0.9) for number in outputs["number"].long().tolist()]


def after_test(said: list[tuple[int, ...]], moved: float = 0.0) -> tuple[Recognizer, dict[str, float]]:
    """A model that says this of five images in batches of three and two, after its test."""
    labels = torch.full((5, 3), END)
    for row, true in enumerate(TRUE):
        labels[row, : len(true)] = torch.tensor(true)
    boxes = torch.tensor([[12.0 * place, 4, 12.0 * place + 10, 20] for place in range(3)]).expand(5, 3, 4)
    images = torch.zeros(5, 3, 24, 40, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(5)
    model = Recognizer(Says(said, boxes + moved), torch.optim.Adam, max_length=3)
    batches = [(images[some], Sequences(labels[some], boxes[some])) for some in (slice(0, 3), slice(3, 5))]
    trainer = lightning.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    trainer.test(model, DataLoader(batches, batch_size=None), verbose=False)  # type: ignore[arg-type]
    return model, model.test_metrics


def test_the_counts_of_the_test_are_those_of_a_count_by_hand():
    model, metrics = after_test(SAID)
    assert metrics["test/acc"] == pytest.approx(2 / 5)
    assert metrics["test/length_acc"] == pytest.approx(3 / 5)
    assert metrics["test/acc_length_1"] == 0
    assert metrics["test/acc_length_2"] == pytest.approx(2 / 3)
    assert metrics["test/acc_length_3"] == 0
    assert metrics["test/loss"] == pytest.approx(2.0)  # the mean of 0 … 4
    text = [["".join(map(str, one)) for one in numbers] for numbers in (SAID, TRUE)]
    assert metrics["test/char_acc"] == pytest.approx(1 - CharErrorRate()(*text).item())
    none = model.num_classes
    assert model.confused[none, 3] == 1  # a 3 too many
    assert model.confused[5, none] == 1  # a 5 that is missing
    assert model.confused.sum() == sum(len(align(said, true)) for said, true in zip(SAID, TRUE, strict=True))


def test_boxes_in_their_places_have_an_average_precision_of_one_and_others_less():
    assert after_test(TRUE)[1]["test/map"] == pytest.approx(1.0)
    assert after_test(TRUE, moved=3.0)[1]["test/map"] < 0.5


def test_edits_are_those_of_a_search_through_all_alignments():
    def fewest(said: tuple[int, ...], true: tuple[int, ...]) -> int:
        if not said or not true:
            return len(said) + len(true)
        both = fewest(said[1:], true[1:]) + (said[0] != true[0])
        return min(both, fewest(said[1:], true) + 1, fewest(said, true[1:]) + 1)

    random = np.random.default_rng(0)
    for _ in range(50):
        said, true = (tuple(random.integers(0, 3, random.integers(0, 6)).tolist()) for _ in range(2))
        assert edits(said, true) == fewest(said, true)
        pairs = align(said, true)
        assert tuple(one for one, _ in pairs if one is not None) == true
        assert tuple(other for _, other in pairs if other is not None) == said


def test_confusions_count_each_character_once():
    counts = sequence_confusion([(1, 2, 3), ()], [(1, 3), (4,)], 10)
    assert counts[1, 1] == counts[3, 3] == 1
    assert counts[10, 2] == 1
    assert counts[4, 10] == 1
    assert counts.sum() == 4


def test_transcripts_vote_with_their_probabilities():
    members = [Transcript((1,), 0.5), Transcript((2,), 0.3), Transcript((2,), 0.3)]
    (merged,) = vote([[one] for one in members])
    assert merged.labels == (2,)
    assert merged.probability == pytest.approx(0.2)


def test_a_run_records_the_accuracies_of_sequences(main, tmp_path: Path):
    assert main(*TINY).code == 0
    (path,) = tmp_path.glob("outputs/street_demo/*/result.json")
    metrics = json.loads(path.read_text())["metrics"]
    assert {"val/acc", "val/char_acc", "val/length_acc", "test/acc", "test/acc_length_2", "test/map"} <= set(metrics)
    assert "train/acc" not in metrics  # nothing is decoded in training
    saved = torch.load(path.with_name("checkpoints") / "best.ckpt", weights_only=True)
    assert all(name.split(".")[0] in ("net", "mean", "std") for name in saved["state_dict"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("data=street_demo", "model=net"), "Net predicts one character for each image"),
        (("data=street_demo", "model=knn"), "predicts one character for each image"),
        (("data=digits", "model=detector"), "Detector recognises several characters in an image"),
        ((*TINY, "loss=focal"), "loss=focal has no effect on Detector"),
        ((*TINY, "loss.label_smoothing=0.1"), "loss.label_smoothing=0.1 has no effect on Detector"),
        ((*TINY, "compile=graph"), "compile=graph trains networks of single characters only"),
        ((*TINY, "monitor.metric=train/acc"), "train/acc"),
        ((*TINY, "augment=mixup"), "augment"),
        ((*TINY, "+data.notebook_form=true"), "data.notebook_form=true is for images of single characters"),
    ],
)
def test_what_does_not_fit_sequences_is_refused(main, tmp_path: Path, overrides: tuple[str, ...], sentence: str):
    outcome = main(*overrides)
    assert outcome.code == 2
    assert sentence in outcome.errors
    assert not list(tmp_path.glob("outputs/*/*/checkpoints"))


@pytest.mark.parametrize("model", ["detector", "ssdlite", "detect_then_read"])
def test_a_detector_needs_boxes(main, tmp_path: Path, monkeypatch, model: str):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "boxless.py").write_text(
        "from dataclasses import replace\n"
        "from handwriting.data.street_demo import read_street_demo\n"
        "def read(**settings):\n"
        "    data = read_street_demo(**settings)\n"
        "    train, test = (replace(part, boxes=None) for part in (data.train, data.test))\n"
        "    return replace(data, train=train, test=test)\n"
    )
    data = [one for one in TINY if one.startswith("data")]
    outcome = main(*data, f"model={model}", "data.read._target_=boxless.read")
    assert outcome.code == 2
    assert "learns from boxes of the characters, and street_demo has none" in outcome.errors
    assert not list(tmp_path.glob("outputs/*/*/checkpoints"))


def test_numbers_that_a_fixed_length_cannot_hold_are_counted(main):
    heads = ("model=digit_heads", "model.max_length=3", "model.widths=[8,8]", "model.depths=[1,1]")
    kept = [one for one in TINY if not one.startswith("model")]
    outcome = main(*kept, *heads)
    assert outcome.code == 0
    assert "more than 3 characters" in outcome.output + outcome.errors


def test_labels_end_where_they_end():
    assert characters_of(torch.tensor([[1, 2, END], [END, END, END]])) == [(1, 2), ()]
