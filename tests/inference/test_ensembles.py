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


def test_the_mean_of_logits_is_what_their_names_say():
    assert torch.allclose(combine(ANSWERS, "logits"), LOGITS.mean(0).softmax(1))


def test_most_votes_win_and_the_mean_decides_between_equals():
    votes = torch.tensor(
        [
            [[0.6, 0.4, 0.0], [0.5, 0.4, 0.1], [0.9, 0.1, 0.0]],
            [[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.4, 0.6, 0.0]],
            [[0.0, 1.0, 0.0], [0.2, 0.2, 0.6], [0.4, 0.6, 0.0]],
        ]
    )
    read = combine(list(votes), "vote")
    assert read.argmax(1).tolist() == [0, 1, 1]
    assert torch.allclose(read.sum(1), torch.ones(3))


@pytest.mark.parametrize("way", ["mean", "logits", "vote"])
def test_one_reader_alone_reads_as_it_reads(way: str):
    assert torch.equal(combine(ANSWERS[:1], way).argmax(1), ANSWERS[0].argmax(1))
    sure = [torch.eye(3)[:1], torch.eye(3)[1:2]]  # probabilities of 0 and 1
    assert combine(sure, way).isfinite().all()


def test_a_stack_trusts_whom_it_can_trust():
    labels = torch.arange(300) % 3
    good = (4 * torch.nn.functional.one_hot(labels, 3) + torch.randn(300, 3)).softmax(1)
    turned = good.roll(1, dims=1)  # always wrong, and always in the same way
    noise = torch.rand(300, 3).softmax(1)
    read = stack([noise[:200], turned[:200]], labels[:200], [noise[200:], turned[200:]])
    assert read.shape == (100, 3)
    assert torch.allclose(read.sum(1), torch.ones(100), atol=1e-5)
    assert (read.argmax(1) == labels[200:]).float().mean() > 0.9
    assert (turned[200:].argmax(1) == labels[200:]).float().mean() < 0.2


def test_another_way_is_refused():
    with pytest.raises(UserError, match="ensemble=median must be one of mean, logits, vote"):
        combine(ANSWERS, "median")
