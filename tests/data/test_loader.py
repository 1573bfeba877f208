import pytest
import torch

from handwriting.data.dataset import LabelledImages, Sequences
from handwriting.data.loader import BatchLists, BatchOrder, serve
from handwriting.utils.errors import UserError


@pytest.fixture
def dataset() -> LabelledImages:
    """103 images, each of the grey level that is its label."""
    labels = torch.arange(103)
    return LabelledImages(labels.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 3).contiguous(), labels)


def order_in(epoch: int, seed: int | None, length: int = 103, batch_size: int = 10) -> list[int]:
    order = BatchOrder(length, batch_size, seed)
    order.set_epoch(epoch)
    return torch.cat(list(order)).tolist()


@pytest.mark.parametrize("seed", [None, 0, 5, 2**32 - 1])
@pytest.mark.parametrize("epoch", [0, 1, 1000])
@pytest.mark.parametrize("batch_size", [1, 10, 103, 500])
def test_every_image_is_served_once_an_epoch(seed, epoch, batch_size):
    assert sorted(order_in(epoch, seed, batch_size=batch_size)) == list(range(103))


def test_without_a_seed_the_order_is_the_given_one():
    assert order_in(0, None) == order_in(3, None) == list(range(103))


def test_the_order_depends_on_seed_and_epoch():
    orders = [tuple(order_in(epoch, seed)) for epoch in range(10) for seed in range(10)]
    assert len(set(orders)) == 100  # seed 0 in epoch 1 is not seed 1 in epoch 0


def test_the_order_depends_on_nothing_else():
    torch.manual_seed(1)
    first = order_in(2, 3, batch_size=10)
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    assert order_in(2, 3, batch_size=64) == first
    assert torch.equal(torch.rand(3), expected)


def test_an_epoch_can_be_served_again():
    order = BatchOrder(103, 10, 0)
    assert [b.tolist() for b in order] == [b.tolist() for b in order]


@pytest.mark.parametrize(("length", "batch_size", "sizes"), [(103, 50, [50, 50, 3]), (100, 50, [50, 50]), (3, 50, [3])])
def test_the_last_batch_is_the_rest(length, batch_size, sizes):
    order = BatchOrder(length, batch_size, 0)
    assert [len(batch) for batch in order] == sizes
    assert len(order) == len(sizes)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_each_batch_and_no_image_is_seen_twice(processes: int):
    whole = [batch.tolist() for batch in BatchOrder(103, 10, 0)]
    shares = [
        [batch.tolist() for batch in BatchOrder(103, 10, 0, share=(rank, processes))] for rank in range(processes)
    ]
    for batch, *shared in zip(whole, *shares, strict=True):
        assert sorted(index for share in shared for index in share) == sorted(batch)
        assert max(map(len, shared)) - min(map(len, shared)) <= 1


@pytest.mark.parametrize(("length", "batch_size"), [(101, 10), (100, 1), (1, 10)])
def test_a_batch_too_small_for_the_processes_is_refused(length: int, batch_size: int):
    with pytest.raises(UserError, match="leaves a last batch of 1 for 2 processes"):
        BatchOrder(length, batch_size, 0, share=(0, 2))


@pytest.mark.parametrize("seed", [None, 4])
def test_images_are_served_with_their_own_labels(dataset, seed):
    loader = serve(dataset, 10, seed)
    batches = list(loader)
    assert len(loader) == len(batches) == 11
    assert [len(labels) for _, labels in batches] == [10] * 10 + [3]
    seen = []
    for images, labels in batches:
        assert isinstance(labels, torch.Tensor)
        seen += labels.tolist()
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert images.shape == (len(labels), 1, 4, 3)
        assert torch.equal(images.long(), labels.reshape(-1, 1, 1, 1).expand(-1, 1, 4, 3))
    assert sorted(seen) == list(range(103))


def test_batches_are_on_the_device_of_the_data(dataset):
    for images, labels in serve(dataset.to(torch.device("meta")), 10, 0):
        assert isinstance(labels, torch.Tensor)
        assert images.device.type == labels.device.type == "meta"


def test_lists_of_batches_hold_the_same_batches(dataset):
    boxes = torch.rand(103, 2, 4)
    sequences = LabelledImages(dataset.images, dataset.labels[:, None].expand(-1, 2).contiguous(), boxes)
    for whole in (dataset, sequences):
        batches = serve(whole, 10, 3)
        lists = list(BatchLists(batches, 4))
        assert list(map(len, lists)) == [4, 4, 3]
        for (images, targets), (wanted, others) in zip([one for some in lists for one in some], batches, strict=True):
            assert torch.equal(images, wanted)
            for values, expected in zip(
                *(one if isinstance(one, Sequences) else [one] for one in (targets, others)), strict=True
            ):
                assert torch.equal(values, expected)
