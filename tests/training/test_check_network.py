"""The check of a network before training: it leaves the network and all random numbers as they were."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from handwriting.data import DataModule
from handwriting.data.digits import read_digits
from handwriting.runs.config import compose_group
from handwriting.runs.instantiate import build_model
from handwriting.training.check_network import check_network


@pytest.fixture(scope="module")
def data() -> DataModule:
    return DataModule("digits", read_digits, limit=100)


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("model", ["net", "quick_net", "resnet"])
def test_the_check_changes_neither_the_network_nor_random_numbers(data: DataModule, model: str):
    config = compose_group("model", model) | ({"dropout": 0.5, "batch_norm": True} if model == "net" else {})
    net = build_model(config, 10, data.image_size, 1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    states = []
    for checked in (False, True):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        if checked:
            check_network(net, config["_target_"], data, nn.CrossEntropyLoss())
        states.append(drawn())
    assert states[0] == states[1]
    assert any("running_mean" in name for name in before)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_check_restores_the_mode_of_each_layer(data: DataModule):
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10))
    net[1].eval()
    check_network(net, "torch.nn.Sequential", data, nn.CrossEntropyLoss())
    assert [layer.training for layer in net] == [True, False, True]
