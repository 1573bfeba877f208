"""Training speed on a CUDA device, and its lower bound: FLOPs, bytes and kernel launches of a step."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import naive
import template
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rounds import number
from speed import unseen
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from handwriting.data.dataset import LabelledImages
from handwriting.data.mnist import read_mnist
from handwriting.models.glyph_net import GlyphNet
from handwriting.models.net import Net
from handwriting.runs.config import CONF
from handwriting.training.fit import build_job

NETS: dict[str, type[nn.Module]] = {"net": Net, "glyph_net": GlyphNet}
BATCHES = (64, 512, 4096)
PRECISIONS = {"float32": "32-true", "TF32": "32-true", "bf16": "bf16-mixed"}
NAIVE, TEMPLATE = "naive DataLoader loop", "Lightning template"
PLAIN, PLAIN_GRAPH = "plain loop, data on the device", "the same with CUDA graphs"
PACKAGE, PACKAGE_GRAPH = "handwriting", "handwriting, compile=graph"
SIDES = (NAIVE, TEMPLATE, PLAIN, PLAIN_GRAPH, PACKAGE, PACKAGE_GRAPH)
SEEDS = 20  # stacked


@dataclass(frozen=True)
class Ceilings:
    """What the device can do in a second: FLOPs by precision, bytes copied (read and written), kernel launches."""

    flops: dict[str, float]
    bytes: float
    launches: float


@dataclass(frozen=True)
class Cell:
    """One network, batch size and precision: images per second of each side, and what its step needs at least."""

    net: str
    batch: int
    precision: str
    speeds: dict[str, float]
    bound: dict[str, float]  # images per second at the ceiling of each kind

    def line(self) -> str:
        """Return a row of the table."""
        speeds = [number(self.speeds[side]) if side in self.speeds else "–" for side in SIDES]
        bounds = [number(self.bound[kind]) for kind in ("flops", "bytes", "launches")]
        return f"{self.net:9} {self.batch:5} {self.precision:8}" + "".join(f"{text:>13}" for text in speeds + bounds)


def heading() -> str:
    """Return the heading of the table."""
    sides = ["naive", "template", "plain", "graphs", "handwriting", "with graphs"]
    return f"{'':24}" + "".join(f"{text:>13}" for text in [*sides, "FLOPs", "bytes", "launches"])


def seconds_each(call: Callable[[], Any], times: int, warm_up: int = 3) -> float:
    """Return the seconds that one of several calls takes on the device."""
    for _ in range(warm_up):
        call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


@contextlib.contextmanager
def multiplying_in(precision: str) -> Iterator[None]:
    """Let matrix products and convolutions of float32 use TF32 or not."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def measure_ceilings() -> Ceilings:
    """Measure a large matrix product in each precision, a large copy, and many tiny kernels."""
    flops, side = {}, 8192
    for precision in PRECISIONS:
        matrix = torch.randn(side, side, device="cuda", dtype=torch.bfloat16 if precision == "bf16" else None)
        with multiplying_in(precision):
            flops[precision] = 2 * side**3 / seconds_each(partial(torch.mm, matrix, matrix), 5)
    large, tiny = torch.empty(2**30, dtype=torch.uint8, device="cuda"), torch.zeros(1, device="cuda")
    other = torch.empty_like(large)
    copied = 2 * len(large) / seconds_each(partial(other.copy_, large), 5)
    return Ceilings(flops, copied, 1 / seconds_each(partial(tiny.add_, 1), 2000))


def bounds(
    dataset: LabelledImages, make: type[nn.Module], batch: int, precision: str, ceilings: Ceilings
) -> dict[str, float]:
    """Return images per second if a step took only its FLOPs, only its bytes, or only its kernel launches.

    Bytes: each layer's output is written once and read once, and so is its gradient; each weight is read twice, its
    gradient is written and read, and Adam reads and writes the weight and two means: ten accesses.
    """
    step = PlainStep(dataset, make, batch, precision)
    outputs: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *call: outputs.append(call[-1].numel()))
        for module in step.net.modules()
        if not list(module.children())
    ]
    with FlopCounterMode(display=False) as counter:
        step()
    for hook in hooks:
        hook.remove()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    kernels = sum(str(event.device_type).endswith("CUDA") for event in profile.events() or ())
    width = 2 if precision == "bf16" else 4
    parameters = sum(parameter.numel() for parameter in step.net.parameters())
    size = 4 * width * sum(outputs) + 4 * 10 * parameters
    return {
        "flops": batch * ceilings.flops[precision] / counter.get_total_flops(),
        "bytes": batch * ceilings.bytes / size,
        "launches": batch * ceilings.launches / max(kernels, 1),
    }


def recorded(compute: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Return a CUDA graph of what a function computes, after three calls of it on another stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        compute()
    return graph


class PlainStep:
    """A step of a plain PyTorch loop with the data on the device; with ``graph`` it is a CUDA graph."""

    def __init__(self, dataset: LabelledImages, make: type[nn.Module], batch: int, precision: str, graph: bool = False):
        self.images, self.labels, self.batch = dataset.images.cuda(), dataset.labels.cuda(), batch
        self.net = make().cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=0.001, fused=True, capturable=graph)
        self.precision, self.place, self.graph, self.keeps_casts = precision, 0, None, not graph
        self.order = torch.randperm(len(self.images), device="cuda")
        if graph:
            self.pixels, self.targets = self.images[:batch].clone(), self.labels[:batch].clone()
            self.graph = recorded(partial(self._compute, self.pixels, self.targets))

    def __call__(self) -> None:
        """Take a step on the next batch."""
        if self.place + self.batch > len(self.order):
            self.place, self.order = 0, torch.randperm(len(self.images), device="cuda")
        index = self.order[self.place : self.place + self.batch]
        self.place += self.batch
        if self.graph is None:
            self._compute(self.images[index], self.labels[index])
        else:
            torch.index_select(self.images, 0, index, out=self.pixels)
            torch.index_select(self.labels, 0, index, out=self.targets)
            self.graph.replay()

    def _compute(self, images: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, self.precision == "bf16", cache_enabled=self.keeps_casts):
            loss = F.cross_entropy(self.net((images / 255 - 0.1307) / 0.3081), labels)
        loss.backward()
        self.optimizer.step()


class Clock(lightning.Callback):
    """Times training from the end of the first epoch to the end of the last."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.steps: list[int] = []

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.steps.append(trainer.global_step)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)

    def seconds_per_step(self) -> float:
        return (self.ends[-1] - self.ends[1]) / (self.steps[-1] - self.steps[1])


def package(root: Path, folder: Path, net: str, batch: int, precision: str, mode: str, steps: int) -> float:
    """Train with this package for three epochs of so many steps; return images per second of the last two.

    These include the validation, on 60 images, and the two checkpoints at the end of each epoch: where an epoch has
    few steps, they take much of the time.
    """
    overrides = [f"model={net}", f"data.batch_size={batch}", f"data.limit={batch * steps}", f"compile={mode}"]
    overrides += [f"trainer.precision={PRECISIONS[precision]}", "trainer.max_epochs=3", "data.val_fraction=0.001"]
    overrides += [f"callbacks.{name}.dirpath={folder}/checkpoints" for name in ("checkpoint", "last")]
    overrides += ["trainer.enable_progress_bar=false", f"data.path={root}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides)
    job: Any = build_job(config, OmegaConf.to_container(config, resolve=True), folder, "")  # type: ignore[arg-type]
    clock = Clock()
    job.trainer.callbacks.append(clock)
    with multiplying_in(precision), unseen():
        job.trainer.fit(job.model, job.data)
    return batch / clock.seconds_per_step()


def measure(
    root: Path,
    folder: Path,
    dataset: LabelledImages,
    net: str,
    batch: int,
    precision: str,
    ceilings: Ceilings,
    slow: bool,
) -> Cell:
    """Measure all sides on one network, batch size and precision; without ``slow`` not the first two."""
    make, speeds = NETS[net], {}
    torch.use_deterministic_algorithms(False)  # which this package sets, and the other sides do not
    torch.backends.cudnn.deterministic = False
    steps = max(min(300, 100_000 // batch), 8)
    with multiplying_in(precision):
        if slow and precision != "bf16":
            few, some = max(min(60, 4000 // batch), 3), naive.mnist(str(root), train=True)
            with unseen():
                optimizer = partial(torch.optim.Adam, lr=0.001)
                model = make().cuda()
                naive.train(model, optimizer(model.parameters()), some, batch, 3, "cuda")
                speeds[NAIVE] = naive.train(model, optimizer(model.parameters()), some, batch, few, "cuda")
                speeds[TEMPLATE] = template.train(make(), optimizer, some, batch, few, 10, folder / "template")
        speeds[PLAIN] = batch / seconds_each(PlainStep(dataset, make, batch, precision), steps, 10)
        speeds[PLAIN_GRAPH] = batch / seconds_each(PlainStep(dataset, make, batch, precision, graph=True), steps, 10)
        limits = bounds(dataset, make, batch, precision, ceilings)
    in_epoch = max(min(100, 50_000 // batch), 4)
    for side, mode in ((PACKAGE, "false"), (PACKAGE_GRAPH, "graph")):
        try:
            speeds[side] = package(root, folder / mode, net, batch, precision, mode, in_epoch)
        except RuntimeError as error:  # the other rows are still of use
            print(f"{side}, {net}, batch {batch}, {precision}: {error}", file=sys.stderr)
    return Cell(net, batch, precision, speeds, limits)


def stacked_step(dataset: LabelledImages, seeds: int, batch: int) -> Callable[[], None]:
    """Return a step of several copies of Net, each with its own data, as one batched model in a CUDA graph."""
    images, labels = dataset.images.cuda(), dataset.labels.cuda()
    nets = [Net().cuda() for _ in range(seeds)]
    parameters, _ = stack_module_state(nets)
    weights = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    bare = deepcopy(nets[0]).to("meta")
    optimizer = torch.optim.Adam(weights.values(), lr=0.001, fused=True, capturable=True)
    index = torch.randint(len(images), (seeds, batch), device="cuda")
    pixels, targets = images[index], labels[index]

    def compute() -> None:
        optimizer.zero_grad()
        run = vmap(lambda own, some: functional_call(bare, own, ((some / 255 - 0.1307) / 0.3081,)))
        losses = F.cross_entropy(run(weights, pixels).flatten(0, 1), targets.flatten(), reduction="sum")
        (losses / batch).backward()
        optimizer.step()

    graph = recorded(compute)

    def step(kept: object) -> None:
        index.random_(len(images))
        pixels.copy_(images[index])
        targets.copy_(labels[index])
        graph.replay()

    return partial(step, (weights, optimizer))  # a graph does not keep alive what it reads and writes


def compare_on_gpu(root: Path, folder: Path, say: Callable[..., None], whole: bool) -> dict[str, Any]:
    """Measure the table, or a part of it, and stacked seeds; print each row when it is measured."""
    dataset = read_mnist(str(root)).train
    ceilings = measure_ceilings()
    tera = ", ".join(f"{name} {value / 1e12:.0f} TFLOP/s" for name, value in ceilings.flops.items())
    say(f"Ceilings: {tera}; {ceilings.bytes / 1e12:.2f} TB/s; {ceilings.launches / 1e3:.0f} launches a millisecond")
    stacked = {seeds: seconds_each(stacked_step(dataset, seeds, 64), 200) for seeds in (1, 5, SEEDS)}
    say("Seeds of Net stacked with vmap in one CUDA graph, batch 64 each: microseconds a step")
    say(*(f"{seeds:4} seeds {1e6 * seconds:8.0f}" for seeds, seconds in stacked.items()), "", sep="\n")
    say("Training, images per second", heading(), sep="\n")
    table = []
    for net in NETS:
        for batch in BATCHES:
            for precision in PRECISIONS:
                if whole or precision == "TF32" or (net == "net" and batch == 64):
                    slow = whole or (net == "net" and batch < 4096 and precision == "TF32")
                    table.append(measure(root, folder, dataset, net, batch, precision, ceilings, slow))
                    say(table[-1].line(), flush=True)
    say("")
    return {"ceilings": asdict(ceilings), "cells": [asdict(cell) for cell in table], "stacked": stacked}
