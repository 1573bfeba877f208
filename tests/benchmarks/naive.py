"""The naive loop of tutorials: a torchvision data set, a transform per image, a DataLoader, .item() every step.

As a script it trains optimizers one after the other: python naive.py ROOT sgd adam --epochs 1
"""

import argparse
import time

import torch
import torch.nn as nn
import torch.optim as optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms
from tqdm import tqdm

OPTIMIZERS = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=0.1),
    "adam": lambda parameters: optim.Adam(parameters, lr=0.001),
    "adagrad": lambda parameters: optim.Adagrad(parameters, lr=0.01),
    "adadelta": lambda parameters: optim.Adadelta(parameters, lr=1.0),
}
NORMALIZE = transforms.Normalize((0.1307,), (0.3081,))


class Net(nn.Module):
    """The optimizer study's Net as a minimal module."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = nn.Linear(1600, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


def mnist(root: str, train: bool) -> Dataset:
    """Return MNIST with the transform that every tutorial has."""
    return datasets.MNIST(root, train=train, transform=transforms.Compose([transforms.ToTensor(), NORMALIZE]))


def train(
    net: nn.Module, optimizer: optim.Optimizer, data: Dataset, batch: int, steps: int | None, device: str
) -> float:
    """Train for one epoch or ``steps`` steps; return images per second."""
    loader = DataLoader(data, batch_size=batch, shuffle=True)
    net.train()
    seen, running_loss, correct = 0, 0.0, 0
    start = time.perf_counter()
    bar = tqdm(loader)
    for step, (images, labels) in enumerate(bar, 1):
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        output = net(images)
        loss = F.cross_entropy(output, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        correct += (output.argmax(1) == labels).sum().item()
        seen += len(labels)
        bar.set_postfix(loss=running_loss / step, acc=correct / seen)
        if step == steps:
            break
    return seen / (time.perf_counter() - start)


def test(net: nn.Module, data: Dataset, device: str) -> float:
    """Return the accuracy as a fraction."""
    net.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in DataLoader(data, batch_size=1000):
            right += (net(images.to(device)).argmax(1) == labels.to(device)).sum().item()
            total += len(labels)
    return right / total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("optimizers", nargs="+", choices=OPTIMIZERS)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training, testing = mnist(options.root, train=True), mnist(options.root, train=False)
    for name in options.optimizers:
        torch.manual_seed(0)
        net = Net().to(device)
        optimizer = OPTIMIZERS[name](net.parameters())
        start = time.perf_counter()
        for epoch in range(options.epochs):
            train(net, optimizer, training, options.batch, None, device)
            seconds = time.perf_counter() - start
            print(f"{name} epoch {epoch + 1} test {test(net, testing, device):.4f} after {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
