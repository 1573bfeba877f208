import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from handwriting.data.splits import Stratum, draw_subset, split_holdout, split_training


@pytest.fixture
def labels() -> torch.Tensor:
    counts = [40, 100, 25, 60, 15]
    return torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(5), counts)))


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_two_sets_are_disjoint_and_cover_everything(labels, fraction, seed):
    kept, held_out = split_holdout(labels, fraction, seed)
    assert sorted(kept.tolist() + held_out.tolist()) == list(range(240))
    assert len(held_out) == round(240 * fraction)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_held_out_images_are_stratified(labels, fraction, seed):
    _, held_out = split_holdout(labels, fraction, seed)
    wanted = np.bincount(labels) * fraction
    assert np.abs(np.bincount(labels[held_out], minlength=5) - wanted).max() <= 1


def test_equal_classes_are_held_out_equally():
    labels = torch.arange(200).repeat_interleave(15)  # as the characters
    _, held_out = split_holdout(labels, 0.2, 0)
    assert labels[held_out].bincount().tolist() == [3] * 200


def test_the_seed_alone_decides(labels):
    first, again, other = (split_holdout(labels, 0.2, seed) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert set(first[1].tolist()) != set(other[1].tolist())


def test_the_split_does_not_move_the_random_state_of_torch_and_numpy(labels):
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(1)
    np.random.seed(1)
    split_holdout(labels, 0.2, 0)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


@pytest.mark.parametrize(("fraction", "size"), [(0.0001, 0), (0.015, 4), (0.99, 238), (0.9999, 240)])
def test_a_fraction_that_makes_a_set_too_small_is_refused(labels, fraction, size, complaint):
    with complaint(
        f"data.val_fraction={fraction:g} takes {size} of 240", "each class, of which there are 5", "5 to 235 images"
    ):
        split_holdout(labels, fraction, 0)


@pytest.mark.parametrize(("fraction", "use"), [(0.1, "validation"), (0.9, "training")])
def test_a_rare_class_that_would_be_missing_from_a_set_is_refused(fraction, use, complaint):
    labels = torch.tensor([0] * 98 + [1] * 2)
    with complaint(f"data.val_fraction={fraction}", "leaves class 1", f"without a {use} image"):
        split_holdout(labels, fraction, 0)


def test_a_class_with_a_single_image_is_refused(complaint):
    labels = torch.tensor([0] * 50 + [3] + [4] * 50)
    with complaint("data.val_fraction=0.2", "class 3 has only one"):
        split_holdout(labels, 0.2, 0)


@pytest.mark.parametrize("limit", [10, 24, 100, 235])
def test_a_subset_is_stratified_and_has_no_image_twice(labels, limit):
    chosen = draw_subset(labels, limit, 0)
    assert len(set(chosen.tolist())) == limit
    shares = np.bincount(labels) * limit / 240
    assert np.abs(np.bincount(labels[chosen], minlength=5) - shares).max() <= 1


def test_a_subset_of_everything_is_everything(labels):
    assert sorted(draw_subset(labels, 240, 0).tolist()) == list(range(240))


def test_the_seed_alone_decides_the_subset(labels):
    first, again, other = (draw_subset(labels, 50, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert set(first.tolist()) != set(other.tolist())


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (241, "more than the 240 training images"),
        (5, "leaves class 4"),
        (4, "takes 4 of 240"),
        (1, "takes 1 of 240"),
        (238, "5 to 235 images"),
    ],
)
def test_an_impossible_limit_is_refused(labels, limit, words, complaint):
    with complaint(f"data.limit={limit}", words):
        draw_subset(labels, limit, 0)


@pytest.mark.parametrize("fold", [0, 2])
def test_folds_are_those_of_scikit_learn(labels, fold):
    kept, held_out = split_training(labels, "kfold", 0.1, 5, fold, 3)
    theirs = list(StratifiedKFold(5, shuffle=True, random_state=3).split(np.zeros(240), labels))[fold]
    assert np.array_equal(kept, theirs[0])
    assert np.array_equal(held_out, theirs[1])


def test_each_image_is_held_out_in_one_fold_and_folds_are_stratified(labels):
    parts = [split_training(labels, "kfold", 0.1, 5, fold, 0) for fold in range(5)]
    assert sorted(image for _, held_out in parts for image in held_out.tolist()) == list(range(240))
    for kept, held_out in parts:
        assert not set(kept.tolist()) & set(held_out.tolist())
        assert len(kept) + len(held_out) == 240
        assert np.abs(labels[held_out].bincount(minlength=5).numpy() - labels.bincount().numpy() / 5).max() <= 1


def test_a_bootstrap_trains_on_as_many_and_holds_out_those_not_drawn(labels):
    drawn, held_out = split_training(labels, "bootstrap", 0.1, 5, 0, 0)
    assert len(drawn) == 240
    assert torch.equal(labels[drawn].bincount(), labels.bincount())  # as often of each class
    assert set(drawn.tolist()) | set(held_out.tolist()) == set(range(240))
    assert not set(drawn.tolist()) & set(held_out.tolist())
    shares = [len(split_training(labels, "bootstrap", 0.1, 5, draw, 0)[1]) / 240 for draw in range(50)]
    assert np.mean(shares) == pytest.approx((1 - 1 / 48) ** 48, abs=0.02)  # 48 of a class on average
    assert len({tuple(split_training(labels, "bootstrap", 0.1, 5, draw, 0)[0].tolist()) for draw in range(5)}) == 5


def test_holdout_is_the_default_way(labels):
    assert all(map(torch.equal, split_training(labels, "holdout", 0.2, 5, 0, 7), split_holdout(labels, 0.2, 7)))


@pytest.mark.parametrize(
    ("split", "folds", "fold", "said"),
    [
        ("kfold", 5, 5, "data.fold=5 must be a whole number from 0 to 4"),
        ("kfold", 5, -1, "data.fold=-1 must be a whole number from 0 to 4"),
        ("kfold", 16, 0, "data.folds=16 needs as many images of each class, but class 4 has 15"),
        ("holdout", 5, 1, "data.fold=1 has no effect with data.split=holdout: add data.split=kfold"),
        ("bootstrap", 5, 1.5, "data.fold=1.5 must be a whole number"),
    ],
)
def test_impossible_splits_are_refused(labels, split, folds, fold, said, complaint):
    with complaint(said):
        split_training(labels, split, 0.1, folds, fold, 0)


def test_a_class_in_a_message_has_its_name(complaint):
    named = Stratum("class", tuple("abcde"))
    with complaint("needs two images of each class, but class d has only one"):
        split_holdout(torch.tensor([0] * 50 + [3] + [4] * 50), 0.2, 0, named)
    with complaint("leaves class b, a rare one"):
        split_holdout(torch.tensor([0] * 98 + [1] * 2), 0.1, 0, named)
    with complaint("but class b has 2"):
        split_training(torch.tensor([0] * 98 + [1] * 2), "kfold", 0.1, 5, 0, 0, named)


def test_where_no_value_is_possible_more_images_are_the_remedy(complaint):
    with complaint("takes 1 of 4 images", "of which there are 3: use more images"):
        split_holdout(torch.tensor([0, 0, 1, 2]), 0.2, 0)
