"""Bad input: one sentence, exit code 2, nothing lost and nothing left behind."""

from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["data.batchsize=3"], "There is no setting 'data.batchsize'. Did you mean 'data.batch_size'?"),
        (["modle=net"], "There is no setting 'modle'. Did you mean 'model'?"),
        (["optim=adan"], "optim=adan is not a choice of optim. Did you mean 'adam'? Known: adadelta, adagrad,"),
        (["-m", "optim=sgd,adan"], "Did you mean 'adam'?"),
        (["experiment=optimisers"], "Did you mean 'optimizers'?"),
        (["optim=sgd,adam"], "add -m"),
        (["model.widths=[1"], "cannot be read as setting=value"),
        (["data=digits", "data.batch_size=0"], "data.batch_size=0 must be a whole number of at least 1."),
        (["data=digits", "data.batch_size=many"], "data.batch_size=many must be a whole number"),
        (["data=digits", "data.val_fraction=1.5"], "data.val_fraction=1.5 must be at least 0 and below 1"),
        (["data=digits", "data.limit=9999"], "more than the 1,038 training images"),
        (["data=digits", "seed=-1"], "seed=-1 must be a whole number"),
        (["data=digits", "optim.lr=-1"], "optim: Invalid learning rate: -1."),
        (["data=digits", "optim.lr=low"], "optim.lr=low must be a number."),
        (["data=digits", "optim.lr=inf"], "optim.lr=inf must be a number, not infinite."),
        (["data=digits", "optim.betas=[.9]"], "optim.betas=[0.9] must be 2 numbers, as in [0.9, 0.999]."),
        (["data=digits", "optim.betas=[.9,b]"], "optim.betas=b must be a number."),
        (
            ["data=digits", "optim._target_=torch.optim.Adan"],
            "optim._target_=torch.optim.Adan is not an importable class or function",
        ),
        (["data=digits", "optim._target_=nowhere.Adam"], "No module named 'nowhere'."),
        (["data=digits", "scheduler=step", "scheduler.step_size=0"], "step_size=0 must be a whole number of at least"),
        (["data=digits", "scheduler=step", "scheduler.gamma=low"], "scheduler.gamma=low must be a number."),
        (["data=digits", "average=ema", "callbacks.ema.decay=low"], "callbacks.ema.decay=low must be a number."),
        (["data=digits", "model.activation=rleu"], "Did you mean 'ReLU'?"),
        (["data=digits", "model.widths=[8,8,8,8]"], "too small after 3"),
        (["data=digits", "trainer.max_epochs=0"], "trainer.max_epochs=0 must be a whole number"),
        (["data=digits", "trainer.limit_val_batches=0"], "trainer.limit_val_batches=0 must be above 0"),
        (["data=digits", "trainer.precision=7"], "trainer: Precision 7 is invalid"),
        (["trainer.gradient_clip_val=1", "trainer.precision=bf16-mixed"], "needs optim.fused=false"),
        (["data=digits", "+data.foo=1"], "data: "),
        (["data=digits", "+foo=1"], "The setting 'foo' is not used by anything: leave it out."),
        (["data=digits", "+trainer.logger=true"], "trainer.logger is set by the package itself: leave it out."),
        (["data=digits", "+trainer.callbacks=[]"], "trainer.callbacks is set by the package itself"),
        (["data=digits", "+model.num_classes=3"], "model.num_classes is set by the package itself"),
        (["data=digits", "+data.augmentation=null"], "data.augmentation is set by the package itself"),
        (["data=digits", "monitor.metric=val/loss", "monitor.mode=max"], "monitor.mode=max contradicts monitor.metric"),
        (["data=digits", "monitor.metric=test/acc"], "monitor.metric=test/acc is of the test set"),
        (["data=digits", "model=knn", "average=ema"], "average=ema has no effect on a classical baseline"),
        pytest.param(  # two processes import torch before they refuse it
            ["data=digits", "model=knn", "trainer=ddp"],
            "trainer=ddp has no effect on a classical baseline",
            marks=pytest.mark.long,
        ),
        (["data=digits", "model=knn", "trainer=ddp", "trainer.devices=1"], "trainer=ddp has no effect on a classical"),
        (["data=mnist"], "could not be downloaded"),
        (["data=mnist", "data.path=nowhere"], "MNIST is not in nowhere"),
        (["data=mnist_csv"], "has no mnist_train.csv and no mnist_test.csv"),
        (["data=characters"], "could not be downloaded"),
        (["data=characters", "data.path=no.mat"], "no.mat does not exist"),
        (["data=digits", "augment=afine"], "Did you mean 'affine'?"),
        (["data=digits", "augment=mixup", "augment.steps.mixup.alpha=0"], "mixup.alpha=0 must be a number, above 0."),
        (["data=digits", "augment.variants=[origin]"], "Did you mean 'original'?"),
        (["data=digits", "augment.clean_epochs=-1"], "augment.clean_epochs=-1 must be a whole number"),
        (["data=digits", "loss.label_smoothing=2"], "loss: "),
        (["data=digits", "data.val_fraction=0", "scheduler=plateau"], "scheduler=plateau monitors val/loss"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_sentence_and_exit_code_2(main, tmp_path: Path, arguments: list[str], sentence: str):
    code, errors, _ = main(*arguments)
    assert code == 2
    assert sentence in errors
    assert len(errors.strip().splitlines()) == 1
    assert not list(tmp_path.glob("outputs/*/*"))  # a mistyped run leaves no row


# Refused by Hydra, and by a job that has begun.
@pytest.mark.parametrize("arguments", [["optim=adan"], ["data=digits", "monitor.metric=test/acc"]], ids=" ".join)
def test_bad_input_ends_the_process_with_code_2_and_no_traceback(command, arguments: list[str]):
    result = command("handwriting.run", *arguments)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_missing_mnist_names_the_folder_and_both_ways_out(main, tmp_path: Path):
    sentence = main().errors
    assert str(tmp_path / "no_data") in sentence
    assert "put its four idx files" in sentence
    assert "data=digits" in sentence
