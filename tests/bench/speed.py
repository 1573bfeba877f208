"""make bench: images a second of this package beside a bare torch loop, Net at batch 64 on MNIST, in one process.

The two take turns, so that a drift of the machine's speed meets both; the ratio is the median over the rounds.
"""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from handwriting.machine import keep_freed_memory

keep_freed_memory()

import lightning  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from handwriting.classifier import Classifier  # noqa: E402
from handwriting.data import DataModule  # noqa: E402
from handwriting.data.files import data_root  # noqa: E402
from handwriting.data.mnist import DIGITS, read_mnist  # noqa: E402
from handwriting.data.sets import HandwritingSet, LabelledImages  # noqa: E402
from handwriting.errors import UserError  # noqa: E402
from handwriting.models.net import Net  # noqa: E402

ROUNDS, STEPS, BATCH = 7, 150, 64


def random_set() -> HandwritingSet:
    """Return a set of MNIST's shape."""
    images = torch.randint(0, 256, (70_000, 1, 28, 28), dtype=torch.uint8)
    whole = LabelledImages(images, torch.randint(0, 10, (70_000,)))
    order = torch.arange(70_000)
    return HandwritingSet(whole[order[:60_000]], whole[order[60_000:]], DIGITS)


def bare_loop(data: DataModule) -> float:
    """Return images a second of the shortest loop that trains Net."""
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001)
    mean, std = data.mean_and_std()
    batches = iter(data.train_dataloader().sampler)
    start = time.perf_counter()
    for _ in range(STEPS):
        index = next(batches)
        loss = F.cross_entropy(net((data.train.images[index] / 255 - mean) / std), data.train.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return STEPS * BATCH / (time.perf_counter() - start)


class StepClock(lightning.Callback):
    """Times the steps alone, as the bare loop does: no set-up, no validation."""

    seconds = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self.seconds = -time.perf_counter()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop the clock."""
        self.seconds += time.perf_counter()


def package(data: DataModule, folder: Path) -> float:
    """Return images a second of the same steps through Lightning, with both loggers."""
    mean, std = data.mean_and_std()
    model = Classifier(Net(), partial(torch.optim.Adam, lr=0.001), None, 10, mean, std)
    clock = StepClock()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        limit_train_batches=STEPS,
        limit_val_batches=1,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        logger=[CSVLogger(folder, name="", version=""), TensorBoardLogger(folder, name="", version="")],
        callbacks=[clock],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(model, data)
    return STEPS * BATCH / clock.seconds


def main() -> None:
    """Print the rounds and their median."""
    import handwriting.train  # noqa: F401  # silences Lightning's remarks

    try:
        data, name = DataModule("mnist", read_mnist, path=str(data_root())), "MNIST"  # a given path is never downloaded
    except UserError:
        data, name = DataModule("random", random_set), "random images of MNIST's shape (HANDWRITING_DATA is not set)"
    print(f"Net, batch {BATCH}, {STEPS} steps a round, {torch.get_num_threads()} threads, {name}")
    ratios, ours, bare = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(-1, ROUNDS):  # the first is the warm-up
            bare_speed, our_speed = bare_loop(data), package(data, Path(folder) / str(number))
            if number >= 0:
                bare.append(bare_speed)
                ours.append(our_speed)
                ratios.append(our_speed / bare_speed)
    for label, values, form in (("bare loop", bare, ",.0f"), ("package", ours, ",.0f"), ("ratio", ratios, ".2f")):
        print(f"{label:10} {statistics.median(values):{form}}  ({min(values):{form}} to {max(values):{form}})")


if __name__ == "__main__":
    main()
