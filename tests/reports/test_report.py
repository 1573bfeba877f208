import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from rich.console import Console
from statsmodels.stats.multitest import multipletests

from handwriting.plots import runs as plots
from handwriting.reports.figures import write_plots
from handwriting.reports.groups import as_text
from handwriting.reports.report import read_report
from handwriting.reports.stats import interval_for_new_images
from handwriting.reports.tables import print_report, write_tables
from handwriting.utils.errors import UserError


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "summary.csv").open()))


def printed(folder: Path, width: int = 100) -> str:
    output = io.StringIO()
    print_report(read_report(folder), [], Console(file=output, width=width))
    return output.getvalue()


def test_seeds_of_one_configuration_become_one_row_with_an_interval(tmp_path: Path, make_run):
    accuracies = {0: 0.95, 1: 0.96, 2: 0.98}
    for seed, accuracy in accuracies.items():
        make_run(tmp_path, "optim=sgd", f"seed={seed}", accuracy=accuracy)
        make_run(tmp_path, "optim=adam", f"seed={seed}", accuracy=accuracy - 0.1)
    write_tables(read_report(tmp_path))
    best, second = rows(tmp_path)
    assert (best["optim"], best["seeds"], second["optim"]) == ("sgd", "3", "adam")
    values = list(accuracies.values())
    low, high = scipy.stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=scipy.stats.sem(values))
    assert float(best["test/acc"]) == pytest.approx((low + high) / 2)
    assert float(best["test/acc ±"]) == pytest.approx((high - low) / 2)
    assert "96.33 ± 3.79" in (tmp_path / "summary.md").read_text()


def test_only_what_differs_names_the_rows(tmp_path: Path, make_run):
    make_run(tmp_path, "data=digits", "optim=sgd", "optim.lr=0.1")
    make_run(tmp_path, "data=digits", "optim=adam", "optim.lr=0.1")
    assert sorted(configuration.label for configuration in read_report(tmp_path).configurations) == [
        "optim=adam",
        "optim=sgd",
    ]


def test_a_default_is_named_when_another_run_overrides_it(tmp_path: Path, make_run):
    make_run(tmp_path)
    make_run(tmp_path, "optim=sgd", "optim.lr=0.1")
    labels = {configuration.label for configuration in read_report(tmp_path).configurations}
    assert labels == {"optim=adam, optim.lr=0.001", "optim=sgd, optim.lr=0.1"}


def test_equal_overrides_with_other_settings_are_separate(tmp_path: Path, make_run):
    first = make_run(tmp_path / "a", "optim=sgd")
    text = (first / "result.json").read_text()
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    (tmp_path / "x" / "result.json").write_text(text)
    (tmp_path / "y" / "result.json").write_text(text.replace("0.001", "0.5"))
    assert {configuration.label for configuration in read_report(tmp_path).configurations} == {
        "optim.lr=0.001",
        "optim.lr=0.5",
    }


def test_learning_rates_that_differ_by_little_keep_different_labels(tmp_path: Path, make_run):
    make_run(tmp_path, "optim.lr=0.1")
    make_run(tmp_path, "optim.lr=0.10000001")
    assert {configuration.label for configuration in read_report(tmp_path).configurations} == {
        "optim.lr=0.1",
        "optim.lr=0.10000001",
    }


def test_configurations_with_one_change_each_are_labelled_by_their_change(tmp_path: Path, make_run):
    make_run(tmp_path)
    for changed in ("optim=sgd", "data.batch_size=32", "optim.lr=0.5"):
        make_run(tmp_path, changed)
    make_run(tmp_path, "optim=sgd", "optim.lr=0.5")
    assert {configuration.label for configuration in read_report(tmp_path).configurations} == {
        "optim=adam, data.batch_size=64, optim.lr=0.001",  # without overrides: the baseline of all others
        "optim=sgd",
        "data.batch_size=32",
        "optim.lr=0.5",
        "optim=sgd, optim.lr=0.5",
    }


def test_values_are_written_as_on_the_command_line():
    values = [True, None, 0.001, [32, 64], "relu", 3]
    assert [as_text(value) for value in values] == ["true", "null", "0.001", "[32,64]", "relu", "3"]


def test_validation_chooses_and_test_ranks(tmp_path: Path, make_run):
    metrics = {"test/acc": 0.8, "val/acc": 0.99, "test/loss": 1.0, "val/loss": 1.0}
    make_run(tmp_path, "optim=sgd", metrics=metrics)
    make_run(tmp_path, "optim=adam", accuracy=0.9)
    report = read_report(tmp_path)
    assert [configuration.label for configuration in report.configurations] == ["optim=adam", "optim=sgd"]
    assert report.chosen is report.configurations[1]
    assert "* optim=sgd has the best validation accuracy" in printed(tmp_path)


def test_a_failed_job_is_a_row_with_its_reason(tmp_path: Path, make_run):
    make_run(tmp_path, "optim=sgd")
    make_run(tmp_path, "optim=adam", "optim.lr=9", status="failed", reason="RuntimeError: out of memory")
    make_run(tmp_path, "optim=adam", status="running")
    write_tables(read_report(tmp_path))
    assert [row["reason"] for row in rows(tmp_path)] == ["", "RuntimeError: out of memory", "not finished"]
    text = printed(tmp_path)
    assert "Not finished: optim.lr=9,optim=adam: RuntimeError: out of memory" in text
    assert read_report(tmp_path).keys == []  # the failed value does not lengthen the name of the good run


def test_jobs_that_differ_in_their_seed_are_one_row_though_none_finished(tmp_path: Path, make_run):
    for rate in (0.1, 0.2):
        make_run(tmp_path, "data=digits", f"optim.lr={rate}", "seed=0", accuracy=rate)
    for seed in (0, 1):
        make_run(tmp_path, "data=digits", "optim=adagrad", f"seed={seed}", status="failed", reason="killed")
    labels = [configuration.label for configuration in read_report(tmp_path).configurations]
    assert labels == ["optim.lr=0.2", "optim.lr=0.1", "optim=adagrad"]
    assert "Not finished: data=digits,optim=adagrad,seed=0; data=digits,optim=adagrad,seed=1: killed" in printed(
        tmp_path
    )


def test_the_only_finished_configuration_is_labelled_by_its_own_overrides(tmp_path: Path, make_run):
    for seed in (0, 1):
        make_run(tmp_path, "data=digits", "optim=sgd", f"seed={seed}")
    make_run(tmp_path, "data=digits", "optim=adagrad", "seed=0", status="failed", reason="killed")
    assert [configuration.label for configuration in read_report(tmp_path).configurations] == [
        "optim=sgd",
        "optim=adagrad",
    ]


def test_one_seed_is_called_inconclusive_and_two_are_not(tmp_path: Path, make_run):
    for optim in ("sgd", "adam"):
        make_run(tmp_path, f"optim={optim}", "seed=0")
    assert "inconclusive" in printed(tmp_path)
    for optim in ("sgd", "adam"):
        make_run(tmp_path, f"optim={optim}", "seed=1")
    assert "inconclusive" not in printed(tmp_path)


@pytest.mark.parametrize("width", [44, 60, 80, 200])
def test_no_number_is_cut_off_in_a_narrow_terminal(tmp_path: Path, make_run, width: int):
    for seed, accuracy in ((0, 0.01), (1, 0.99)):
        make_run(tmp_path, "optim=[a_long,list_of,settings]", f"seed={seed}", accuracy=accuracy, parameters=12_345_678)
        make_run(tmp_path, "optim=[another_long,list_of,settings]", f"seed={seed}", accuracy=accuracy)
    lines = printed(tmp_path, width).splitlines()
    assert all(len(line.rstrip()) <= width for line in lines if "seed" not in line.lower() and "choose" not in line)
    text = "\n".join(lines)
    figures = ["50.00 ± 622.60", "49.00 ± 622.60", "1.5", "12,345,678"]  # 100 × 0.49 × t(0.975, 1 degree of freedom)
    printed_whole = [figure in text for figure in figures]
    assert printed_whole[0]
    assert printed_whole == sorted(printed_whole, reverse=True)  # columns are omitted from the right
    assert ("parameters" in text) == (width == 200) == printed_whole[-1]


def test_a_long_label_is_wrapped_between_its_words(tmp_path: Path, make_run):
    make_run(tmp_path, "data.batch_size=128", "model.pooling=blur", "optim=sgd")
    make_run(tmp_path, "data.batch_size=1024", "model.pooling=max", "optim=adam")
    text = printed(tmp_path, width=80)
    assert all(word in text for word in ("data.batch_size=128,", "data.batch_size=1024,", "model.pooling=blur"))


def test_the_name_of_a_single_run_is_wrapped_at_its_commas(tmp_path: Path, make_run):
    make_run(tmp_path, "data.limit=400", "experiment=mnist_best", "trainer.max_epochs=1")
    lines = [line.split()[0] for line in printed(tmp_path, width=70).splitlines() if "=" in line]
    assert lines[:3] == ["data.limit=400,", "experiment=mnist_best,", "trainer.max_epochs=1"]
    assert "data.limit=400,experiment=mnist_best,trainer.max_epochs=1" in printed(tmp_path, width=200)


def test_plots_are_written_and_a_folder_of_failures_has_none(tmp_path: Path, make_run):
    make_run(tmp_path / "a", "optim=sgd")
    paths = write_plots(read_report(tmp_path / "a"))
    assert [path.name for path in paths] == ["curves.png", "ranking.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    make_run(tmp_path / "b", "optim=sgd", status="failed")
    assert write_plots(read_report(tmp_path / "b")) == []


def test_with_very_many_configurations_the_plots_show_the_best(
    tmp_path: Path, make_run, monkeypatch: pytest.MonkeyPatch
):
    for i in range(4):
        make_run(tmp_path, f"optim.lr=0.{i + 1}", accuracy=0.9 + i / 100)
    drawn = {}
    monkeypatch.setattr("handwriting.plots.runs.MOST_CURVES", 2)
    monkeypatch.setattr("handwriting.plots.runs.MOST_ROWS", 3)
    for name in ("draw_curves", "draw_ranking"):
        draw = getattr(plots, name)
        monkeypatch.setattr(plots, name, lambda *a, n=name, d=draw: drawn.update({n: (list(a[0]), a[-2:])}) or d(*a))
    write_plots(read_report(tmp_path))
    best = ["optim.lr=0.4", "optim.lr=0.3", "optim.lr=0.2"]
    assert drawn == {"draw_curves": (best[:2], (4, "seed")), "draw_ranking": (best, (4, "seed"))}


def test_curves_of_folds_whose_epochs_differ_by_a_step_go_from_step_to_step(
    tmp_path: Path, make_run, monkeypatch: pytest.MonkeyPatch
):
    logged = ({10: 3.0, 20: 2.0, 27: 0.6}, {10: 5.0, 18: 4.2, 20: 4.0, 28: 0.8})
    for seed, losses in enumerate(logged):
        rows = [f",{step},{loss}," for step, loss in losses.items()] + ["0,26,,0.9"]
        path = make_run(tmp_path, f"seed={seed}")
        (path / "metrics.csv").write_text("\n".join(["epoch,step,train/loss_step,val/acc", *rows]) + "\n")
    drawn = {}
    draw = plots.draw_curves
    monkeypatch.setattr(plots, "draw_curves", lambda losses, *others: drawn.update(losses) or draw(losses, *others))
    write_plots(read_report(tmp_path))
    (frame,) = drawn.values()
    steps = [10, 18, 20, 27, 28]
    assert frame.index.tolist() == steps
    for column, losses in zip(frame, logged, strict=True):
        expected = np.interp(steps, [*losses], [*losses.values()])
        inside = np.array(steps) <= max(losses)  # after its last step a run has nothing
        assert frame[column].to_numpy()[inside] == pytest.approx(expected[inside])
        assert np.isnan(frame[column].to_numpy()[~inside]).all()


def test_nets_of_several_sizes_are_drawn_against_their_costs(tmp_path: Path, make_run):
    for number, size in enumerate((1000, 2000, 2000)):
        make_run(tmp_path, f"optim.lr=0.{number + 1}", parameters=size)
    assert "costs.png" not in [path.name for path in write_plots(read_report(tmp_path))]
    make_run(tmp_path, "optim.lr=0.9", parameters=3000)
    report = read_report(tmp_path)
    assert "costs.png" in [path.name for path in write_plots(report)]
    write_tables(report)
    assert "(costs.png)" in (tmp_path / "summary.md").read_text()


def test_a_run_without_curves_does_not_break_the_plots(tmp_path: Path, make_run):
    (make_run(tmp_path, "optim=sgd") / "metrics.csv").unlink()
    (make_run(tmp_path, "optim=adam") / "metrics.csv").write_text("")
    assert len(write_plots(read_report(tmp_path))) == 2


def test_comparisons_are_paired_by_seed_and_corrected(tmp_path: Path, make_run):
    random = np.random.default_rng(0)
    accuracies = {name: {} for name in ("sgd", "adam", "adagrad")}
    for seed in range(5):
        luck = random.normal(0, 0.01)  # effect of the seed, shared by all: larger than the differences
        for name, gain in (("sgd", 0.0), ("adam", 0.003), ("adagrad", 0.0001)):
            accuracies[name][seed] = 0.95 + luck + gain + random.normal(0, 0.0005)
            make_run(tmp_path, f"optim={name}", f"seed={seed}", accuracy=accuracies[name][seed])
    make_run(tmp_path, "optim=sgd", "seed=9", accuracy=0.1)  # a seed that only one has is not compared
    report = read_report(tmp_path)
    paths = write_tables(report)
    assert {path.name for path in paths} == {"summary.csv", "summary.md", "differences.csv"}
    found = pd.read_csv(tmp_path / "differences.csv").set_index(["better", "worse"])
    pairs = [("adam", "sgd"), ("adam", "adagrad")]
    for better, worse in pairs:
        test = scipy.stats.ttest_rel([*accuracies[better].values()], [*accuracies[worse].values()])
        row = found.loc[f"optim={better}", f"optim={worse}"]
        assert row["p"] == pytest.approx(test.pvalue)
        assert row["p (Holm)"] > 1.99 * row["p"]
        assert (row["seeds"], row["significant"]) == (5, True)
    text = (tmp_path / "summary.md").read_text()
    assert "adam is better than sgd by 0.3" in text
    assert "percentage points (5 seeds, p " in text
    assert "is not significant (5 seeds, p = " in text
    assert re.search(
        r"In 80 % of experiments, 5 seeds detect a difference of [\d.]+; to detect 0.1, about \d+ seeds are needed\.",
        text,
    )
    write_tables(read_report(tmp_path, smallest=50))
    assert re.search(r"to detect 50, about \d seeds are needed\.", (tmp_path / "summary.md").read_text())
    assert "2 of 3 comparisons are significant at the 5 % level over all of them" in text
    assert "adam is better than sgd" in printed(tmp_path, 160)


def test_very_many_comparisons_are_counted_and_all_in_the_file(tmp_path: Path, make_run):
    random = np.random.default_rng(0)
    for rate in range(1, 11):
        for seed in range(3):
            make_run(tmp_path, f"optim.lr=0.{rate:02}", f"seed={seed}", accuracy=random.normal(0.9, 0.01))
    write_tables(read_report(tmp_path))
    assert len(pd.read_csv(tmp_path / "differences.csv")) == 45
    text = printed(tmp_path)
    assert "40 more pairs are in differences.csv." in text
    assert "0 of 45 comparisons are significant at the 5 % level over all of them" in text


def test_grey_in_the_ranking_follows_the_corrected_comparisons(tmp_path: Path, make_run, monkeypatch):
    random = np.random.default_rng(0)
    for rate in range(1, 31):  # of 435 comparisons of equals some are significant before the correction
        for seed in range(3):
            accuracy = 0.5 + seed / 100 if rate == 30 else random.normal(0.9, 0.001)
            make_run(tmp_path, f"optim.lr=0.{rate:02}", f"seed={seed}", accuracy=accuracy)
    drawn = {}
    draw = plots.draw_ranking
    monkeypatch.setattr(plots, "draw_ranking", lambda *a: drawn.update(grey=a[3]) or draw(*a))
    monkeypatch.setattr("handwriting.plots.style.as_png", lambda _: b"")
    report = read_report(tmp_path)
    write_plots(report)
    assert sum(comparison.difference.p < 0.05 for comparison in report.comparisons) > 29
    assert (
        drawn["grey"]
        == {comparison.worse.label for comparison in report.comparisons if comparison.p < 0.05}
        <= {"optim.lr=0.3"}
    )


def test_a_damaged_record_is_named_and_the_other_seeds_are_reported(tmp_path: Path, make_run):
    for seed in range(3):
        make_run(tmp_path, "optim=sgd", f"seed={seed}")
    (tmp_path / "optim=sgd,seed=1" / "result.json").write_text('{"status": "do')
    sentence = "Not in the table: optim=sgd,seed=1: its result.json is damaged; the same command retrains it."
    assert sentence in printed(tmp_path)
    write_tables(read_report(tmp_path))
    assert sentence in (tmp_path / "summary.md").read_text()
    assert rows(tmp_path)[0]["seeds"] == "2"


DIFFERENT = "trained on different devices or numbers of threads: "


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (["cpu, 2 threads"] * 3, ""),
        (["cpu, 2 threads", "cpu", ""], ""),  # two older records
        (["cpu, 2 threads", "cpu, 1 thread", "cpu, 2 threads"], "cpu, 2 threads (2 runs); cpu, 1 thread (1 run). "),
        (["cpu, 2 threads", "NVIDIA H100", "NVIDIA H100"], "NVIDIA H100 (2 runs); cpu, 2 threads (1 run). "),
        ([f"cpu, {n} threads" for n in range(2, 9)], "cpu, 5 threads (1 run) and 3 others. "),
    ],
)
def test_different_devices_or_threads_are_reported(tmp_path: Path, make_run, devices: list[str], said: str):
    for seed, device in enumerate(devices):
        make_run(tmp_path, f"seed={seed}", **({"device": device} if device else {}))
    make_run(tmp_path, "optim=sgd", status="failed", device="another")  # has no numbers
    write_tables(read_report(tmp_path))
    for text in (printed(tmp_path), (tmp_path / "summary.md").read_text()):
        assert (DIFFERENT in text) == bool(said)
        assert said in text


def test_against_one_configuration_the_others_are_not_compared_with_each_other(tmp_path: Path, make_run):
    gains = {"sgd": 0.0, "adam": 0.003, "adagrad": 0.002, "rmsprop": 0.001}
    random = np.random.default_rng(0)
    accuracies = {name: 0.9 + gain + random.normal(0, 0.0005, 5) for name, gain in gains.items()}
    for name, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            make_run(tmp_path, f"optim={name}", f"seed={seed}", accuracy=accuracy)
    for called in ("optim=sgd", "sgd"):
        report = read_report(tmp_path, called)
        assert [comparison.worse.label for comparison in report.comparisons] == ["optim=sgd"] * 3
        better = [comparison.better.label.removeprefix("optim=") for comparison in report.comparisons]
        assert better == ["adam", "adagrad", "rmsprop"]
        p_values = [scipy.stats.ttest_rel(accuracies[name], accuracies["sgd"]).pvalue for name in better]
        assert [comparison.p for comparison in report.comparisons] == pytest.approx(
            multipletests(p_values, method="holm")[1]
        )
    write_tables(report)
    assert "3 of 3 comparisons with sgd are significant" in (tmp_path / "summary.md").read_text()
    assert len(pd.read_csv(tmp_path / "differences.csv")) == 3


def test_against_a_configuration_with_more_overrides_in_another_sweep(tmp_path: Path, make_run):
    for name in ("sgd", "adam"):
        for seed in (0, 1):
            make_run(tmp_path, f"optim={name}", f"seed={seed}", accuracy=0.9 + 0.01 * seed)
    make_run(tmp_path, "optim=adam", "data.batch_size=64")  # adam, seed=0 again: the row has both overrides
    make_run(tmp_path, "optim=adagrad", "data.batch_size=32")
    report = read_report(tmp_path, "optim=adam")
    assert report.against is not None
    assert report.against.label == "optim=adam, data.batch_size=64"
    with pytest.raises(UserError, match=r"no configuration 'optim=adam, data\.batch_size=128'"):
        read_report(tmp_path, "optim=adam, data.batch_size=128")


def test_against_an_unknown_configuration_or_one_with_one_seed_is_one_sentence(tmp_path: Path, make_run):
    make_run(tmp_path, "optim=sgd", "seed=0")
    make_run(tmp_path, "optim=adam", "seed=0")
    with pytest.raises(UserError, match=r"no configuration 'adm'\. Did you mean 'adam'"):
        read_report(tmp_path, "adm")
    with pytest.raises(UserError, match="no other configuration that shares two seeds with adam"):
        read_report(tmp_path, "adam")


def test_one_seed_each_makes_no_comparison(tmp_path: Path, make_run):
    make_run(tmp_path, "optim=sgd", "seed=0")
    make_run(tmp_path, "optim=adam", "seed=0", accuracy=0.1)
    write_tables(read_report(tmp_path))
    assert not (tmp_path / "differences.csv").exists()
    assert "is better than" not in printed(tmp_path)


def test_two_varying_settings_make_a_grid(tmp_path: Path, make_run):
    for name in ("sgd", "adam"):
        for rate in ("0.1", "0.01", "0.5"):
            make_run(tmp_path, f"optim={name}", f"optim.lr={rate}")
    assert "grid.png" in {path.name for path in write_plots(read_report(tmp_path))}
    write_tables(read_report(tmp_path))
    assert "grid.png" in (tmp_path / "summary.md").read_text()
    make_run(tmp_path / "one", "optim=sgd")
    make_run(tmp_path / "one", "optim=adam")
    assert "grid.png" not in {path.name for path in write_plots(read_report(tmp_path / "one"))}


def test_a_single_configuration_is_labelled_by_its_overrides(tmp_path: Path, make_run):
    for seed in (0, 1):
        make_run(tmp_path, "optim=sgd", f"seed={seed}")
    (configuration,) = read_report(tmp_path).configurations
    assert configuration.label == "optim=sgd"
    make_run(tmp_path / "plain", "seed=3")
    (configuration,) = read_report(tmp_path / "plain").configurations
    assert configuration.label == "default"


def test_intervals_for_new_images_are_from_the_predictions_of_the_runs(tmp_path: Path, make_run):
    random, images = np.random.default_rng(0), 400
    labels, hard = random.integers(0, 10, images), random.normal(0, 2, images)
    right = {name: np.zeros((4, images)) for name in ("sgd", "adam")}
    for name, gain in (("sgd", 0.0), ("adam", 0.5)):
        for seed in range(4):
            right[name][seed] = random.random(images) < 1 / (1 + np.exp(-2 - gain - hard))
            folder = make_run(tmp_path, f"optim={name}", f"seed={seed}", accuracy=right[name][seed].mean())
            table = pd.DataFrame({"label": labels, "prediction": (labels + 1 - right[name][seed]).astype(int)})
            table.to_csv(folder / "predictions.csv")
    write_tables(read_report(tmp_path))
    (row,) = pd.read_csv(tmp_path / "differences.csv").to_dict("records")
    _, half_width = interval_for_new_images(right["adam"] - right["sgd"])
    assert row["± for new images"] == pytest.approx(half_width)
    assert row["± for new images"] > row["±"]
    assert row["P low"] <= row["P(better seed)"] <= row["P high"]
    assert f"(± {100 * half_width:.2f} for new images; 4 seeds, p" in (tmp_path / "summary.md").read_text()
    one = tmp_path / "optim=sgd,seed=0" / "predictions.csv"
    one.write_text(one.read_text().replace("\n0,", "\n0,1"))  # the test images of one run are others
    write_tables(read_report(tmp_path))
    assert np.isnan(pd.read_csv(tmp_path / "differences.csv").to_dict("records")[0]["± for new images"])
    assert "for new images" not in (tmp_path / "summary.md").read_text()
