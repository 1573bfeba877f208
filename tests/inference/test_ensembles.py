import numpy as np
import pytest
import torch

from handwriting.inference.ensembles import combine, stack
from handwriting.utils.errors import UserError

torch.manual_seed(0)
LOGITS = 2 * torch.randn(4, 50, 6, dtype=torch.float64)
ANSWERS = list(LOGITS.softmax(2))


def test_the_mean_is_that_of_the_probabilities():
    assert np.allclose(combine(ANSWERS, "mean"), np.mean([answer.numpy() for answer in ANSWERS], axis=0))


def test_the_mean_of_logits_is_the_softmax_of_their_mean():
    assert torch.allclose(combine(ANSWERS, "logits"), LOGITS.mean(0).softmax(1))


def test_most_votes_win_and_the_mean_decides_between_equals():
    votes = torch.tensor(
        [
            [[0.6, 0.4, 0.0], [0.5, 0.4, 0.1], [0.9, 0.1, 0.0]],
            [[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.4, 0.6, 0.0]],
            [[0.0, 1.0, 0.0], [0.2, 0.2, 0.6], [0.4, 0.6, 0.0]],
        ]
    )
    combined = combine(list(votes), "vote")
    assert combined.argmax(1).tolist() == [0, 1, 1]
    assert torch.allclose(combined.sum(1), torch.ones(3))


@pytest.mark.parametrize("way", ["mean", "logits", "vote"])
def test_an_ensemble_of_one_model_predicts_like_the_model(way: str):
    assert torch.equal(combine(ANSWERS[:1], way).argmax(1), ANSWERS[0].argmax(1))
    sure = [torch.eye(3)[:1], torch.eye(3)[1:2]]  # probabilities of 0 and 1
    assert combine(sure, way).isfinite().all()


def test_stacking_learns_how_reliable_each_model_is():
    labels = torch.arange(300) % 3
    good = (4 * torch.nn.functional.one_hot(labels, 3) + torch.randn(300, 3)).softmax(1)
    permuted = good.roll(1, dims=1)  # always wrong, and always in the same way
    noise = torch.rand(300, 3).softmax(1)
    stacked = stack([noise[:200], permuted[:200]], labels[:200], [noise[200:], permuted[200:]])
    assert stacked.shape == (100, 3)
    assert torch.allclose(stacked.sum(1), torch.ones(100), atol=1e-5)
    assert (stacked.argmax(1) == labels[200:]).float().mean() > 0.9
    assert (permuted[200:].argmax(1) == labels[200:]).float().mean() < 0.2


def test_another_way_is_refused():
    with pytest.raises(UserError, match="ensemble=median must be one of mean, logits, vote"):
        combine(ANSWERS, "median")
