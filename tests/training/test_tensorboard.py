"""The events of a run in a running TensorBoard, through the requests of its page."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

NAMES = [f"digits/data.limit=100,optim={optim},trainer.max_epochs=1" for optim in ("adam", "sgd")]

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[..., int]) -> Iterator[Ask]:
    folder = tmp_path_factory.mktemp("tensorboard")
    small = ("-m", "data=digits", "optim=sgd,adam", "data.limit=100", "trainer.max_epochs=1")
    assert run_in(folder, *small, figures=True) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", "outputs", "--port", str(port), "--load_fast=false"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def get(path: str, body: dict | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/data/{path}", data, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            return json.loads(answer.read())

    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                if len(get("runs")) >= len(NAMES) and len(get("plugin/scalars/tags")) >= len(NAMES):
                    break
            except OSError:
                pass
            time.sleep(0.5)
        yield get
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.mark.long
def test_runs_are_named_after_their_settings(ask: Ask):
    assert sorted(ask("runs")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_is_a_scalar(ask: Ask, name: str):
    metrics = {f"{part}/{metric}" for part in ("train", "val", "test") for metric in ("loss", "acc")}
    tags = ask("plugin/scalars/tags")[name].keys()
    assert metrics | {"train/loss_step", "lr"} <= tags
    assert "epoch" not in tags


@pytest.mark.parametrize("name", NAMES)
def test_training_images_and_the_confusion_matrix_are_pictures(ask: Ask, name: str):
    assert {"train/images", "test/confusion"} <= ask("plugin/images/tags")[name].keys()


def test_the_hparams_tab_opens_with_the_swept_settings_and_the_final_accuracies(ask: Ask):
    experiment = ask("plugin/hparams/experiment", {"experimentName": ""})
    shown = [info["name"] for info in experiment["hparamInfos"]]
    assert shown[:2] == ["optim", "optim.lr"]  # SGD and Adam have their own rates
    assert {"seed", "data.batch_size", "data.limit", "augment"} <= set(shown[2:])
    metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert metrics[:2] == ["final/test/acc", "final/val/acc"]
    body = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_RUNNING"],
        "colParams": [{"metric": info["name"]} for info in experiment["metricInfos"]],
        "startIndex": 0,
        "sliceSize": 100,
    }
    groups = ask("plugin/hparams/session_groups", body)["sessionGroups"]
    assert sorted(group["hparams"]["optim"] for group in groups) == ["adam", "sgd"]
    for group in groups:
        assert {session["status"] for session in group["sessions"]} == {"STATUS_SUCCESS"}
        values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        assert 0 < values["final/test/acc"] == values["test/acc"] <= 1
        assert 0 < values["final/val/acc"] == values["val/acc"] <= 1  # of one epoch
