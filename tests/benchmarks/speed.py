"""Training speed in images per second: naive DataLoader loop, Lightning template, plain PyTorch loop, this package.

All run in one process with this package's thread settings. The naive loop and the template also run in a process of
their own with default settings, as they usually do.
"""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import naive
import numpy as np
import template
import torch
from ordinary import OrdinaryProcess
from rounds import Contest, take_turns
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import transforms

from handwriting.data.augment import Warp
from handwriting.data.characters import read_characters
from handwriting.data.dataset import LabelledImages
from handwriting.data.mnist import read_mnist
from handwriting.models.char_net import CharNet
from handwriting.models.net import Net
from handwriting.utils import hardware

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAIVE, TEMPLATE = "naive DataLoader loop", "Lightning template"
PLAIN, PLAIN_LAST = "plain PyTorch loop", "plain loop, channels_last"
NAIVE_ALONE, TEMPLATE_ALONE = "naive loop, default threads", "template, default threads"
PACKAGE, PACKAGE_BF16 = "handwriting", "handwriting, bf16-mixed"
AFFINE = (12.0, 0.12, 0.15, 2.0)  # degrees, scale, shear and shift in pixels, as in conf/augment/affine.yaml


class Terminal(io.StringIO):
    """A terminal that discards its output: progress bars are drawn on it."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Send all output, including progress bars, to a terminal that discards it."""
    terminal = Terminal()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        yield


class CharacterImages(Dataset):
    """The characters as a map-style data set: each image is transformed when it is indexed."""

    def __init__(self, part: LabelledImages):
        self.part = part
        affine = transforms.RandomAffine(degrees=12, translate=(0.07, 0.07), scale=(0.88, 1.12), shear=8.6)
        chosen = transforms.RandomApply([affine], p=0.7)
        self.transform = transforms.Compose([transforms.ToPILImage(), chosen, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int):
        return self.transform(self.part.images[index]), int(self.part.labels[index])


def plain_loop(
    make_net: Callable[[], nn.Module], part: LabelledImages, batch: int, steps: int, channels_last: bool, warp: bool
) -> float:
    """Train with a minimal loop over tensors; return images per second."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    net = make_net().to(DEVICE, memory_format=form)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001)
    images, labels = part.images.to(DEVICE), part.labels.to(DEVICE)
    change, generator = Warp(0.7, *AFFINE), torch.Generator(DEVICE)
    order = torch.randperm(len(images)).to(DEVICE).split(batch)[:steps]
    start = time.perf_counter()
    for index in order:
        pixels, targets = images[index] / 255, labels[index]
        if warp:
            pixels, _ = change(pixels, targets, 0, generator)
        loss = F.cross_entropy(net((pixels - 0.1307) / 0.3081), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return len(order) * batch / (time.perf_counter() - start)


def package(root: Path, folder: Path, batch: int, steps: int, *overrides: str) -> float:
    """Train through the command line's own main, with what it logs by default; return images per second."""
    from handwriting.run import main
    from handwriting.sweeps.progress import PROGRESS, Progress

    arguments = [f"data.batch_size={batch}", "trainer.max_epochs=1", f"trainer.limit_train_batches={steps}"]
    arguments += ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "force=true"]
    arguments += ["+callbacks.clock._target_=template.StepClock", *overrides]
    here = Path.cwd()
    vars(PROGRESS).update(vars(Progress()))
    os.chdir(folder)
    try:
        with unseen(), mock.patch.object(sys, "argv", ["handwriting", *arguments]):
            os.environ["HANDWRITING_DATA"] = str(root)
            main()
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"{' '.join(arguments)}: exit code {stop.code}") from None
    finally:
        os.chdir(here)
    return template.StepClock.steps * batch / template.StepClock.seconds


def has_bf16() -> bool:
    """Return whether this machine has instructions for bf16."""
    if DEVICE == "cuda":
        return torch.cuda.is_bf16_supported()
    return any("bf16" in name for name in hardware.processor()["instructions"] or ())


def naive_on_mnist(root: Path, batch: int, steps: int) -> float:
    """Train Net in the naive DataLoader loop; return images per second."""
    net = naive.Net().to(DEVICE)
    return naive_loop(net, naive.mnist(str(root), train=True), batch, steps)


def template_on_mnist(root: Path, folder: Path, batch: int, steps: int) -> float:
    """Train Net as templates do; return images per second."""
    with unseen():
        return template.train(naive.Net(), adam, naive.mnist(str(root), train=True), batch, steps, 10, folder)


def naive_on_characters(root: Path, batch: int, steps: int) -> float:
    """Train CharNet in the naive DataLoader loop; return images per second."""
    part, classes = characters(root)
    return naive_loop(CharNet(classes).to(DEVICE), CharacterImages(part), batch, steps)


def template_on_characters(root: Path, folder: Path, batch: int, steps: int) -> float:
    """Train CharNet as templates do; return images per second."""
    part, classes = characters(root)
    with unseen():
        return template.train(CharNet(classes), adam, CharacterImages(part), batch, steps, classes, folder)


def naive_loop(net: nn.Module, data: Dataset, batch: int, steps: int) -> float:
    """Train a net in the naive DataLoader loop; return images per second."""
    with unseen():
        return naive.train(net, adam(net.parameters()), data, batch, steps, DEVICE)


def adam(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that all sides use."""
    return torch.optim.Adam(parameters, lr=0.001)


def characters(root: Path) -> tuple[LabelledImages, int]:
    """Return the training characters and the number of classes."""
    part = read_characters(str(root / "characters" / "characters.mat")).train
    return part, int(part.labels.max()) + 1


def compare_on_mnist(root: Path, folder: Path, rounds: int, steps: int = 300, batch: int = 64) -> Contest:
    """Compare Net's training on MNIST, a third of an epoch."""
    part = read_mnist(str(root)).train
    return _compare(
        (naive_on_mnist, root, batch, steps),
        (template_on_mnist, root, folder / "template", batch, steps),
        lambda channels_last: plain_loop(Net, part, batch, steps, channels_last, False),
        (root, folder, batch, steps),
        rounds,
    )


def compare_on_characters(root: Path, folder: Path, rounds: int, steps: int = 12, batch: int = 64) -> Contest:
    """Compare CharNet's training on the characters, each image with its own random affine map."""
    part, classes = characters(root)
    return _compare(
        (naive_on_characters, root, batch, steps),
        (template_on_characters, root, folder / "template", batch, steps),
        lambda channels_last: plain_loop(lambda: CharNet(classes), part, batch, steps, channels_last, True),
        (root, folder, batch, steps, "data=characters", "model=char_net", "augment=affine"),
        rounds,
    )


def _compare(
    by_naive: tuple[Any, ...],
    by_template: tuple[Any, ...],
    bare: Callable[[bool], float],
    ours: tuple[Any, ...],
    rounds: int,
) -> Contest:
    """Compare the naive loop and the template, each a function and its arguments, a plain loop and this package.

    ``ours`` are the arguments of ``package``, which trains in bf16 too where there are instructions for it.
    """
    with OrdinaryProcess() as process:
        sides = {
            NAIVE_ALONE: process.side(*by_naive),
            TEMPLATE_ALONE: process.side(*by_template),
            NAIVE: partial(*by_naive),
            TEMPLATE: partial(*by_template),
            PLAIN: partial(bare, False),
            PLAIN_LAST: partial(bare, True),
            PACKAGE: partial(package, *ours),
        }
        if has_bf16():
            sides[PACKAGE_BF16] = partial(package, *ours, "trainer.precision=bf16-mixed")
        return take_turns(sides, rounds, "images/s")


def write_random_sets(root: Path) -> Path:
    """Write sets of the shape of MNIST and the characters, whose pixels are random; return their folder."""
    import scipy.io

    random = np.random.default_rng(0)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        for kind, shape, top in (("images-idx3", (count, 28, 28), 256), ("labels-idx1", (count,), 10)):
            header = b"".join(word.to_bytes(4, "big") for word in (0x800 + len(shape), *shape))
            body = random.integers(0, top, shape, np.uint8).tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(header + body)
    pages = {
        name: random.integers(0, 256, (200, count, 28, 28), np.uint8) for name, count in (("train", 15), ("test", 5))
    }
    (root / "characters").mkdir()
    scipy.io.savemat(root / "characters" / "characters.mat", pages)
    return root
