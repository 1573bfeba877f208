"""What a run writes for TensorBoard: curves in the order of their steps, and its row of the HPARAMS tab."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

FINAL = ("test/acc", "test_tta/acc", "val/acc")  # of the chosen epoch; TensorBoard sorts tags, and final/ comes first


class RunLogger(TensorBoardLogger):
    """The TensorBoard events of one run, in its folder.

    With ``resumed_step``, the step of the checkpoint that training resumes from, TensorBoard drops later points.
    """

    def __init__(self, folder: Path, resumed_step: int | None = None):
        purge: dict[str, Any] = {} if resumed_step is None else {"purge_step": resumed_step + 1}
        super().__init__(folder, name="", version="", default_hp_metric=False, **purge)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics at a step, without the epoch that Lightning adds to each: its chart is a staircase."""
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def log_result(self, settings: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """Log the final accuracies once, as final/…, and the settings for the HPARAMS tab.

        The tab shows the last point of each tag as a metric: of val/acc that is the last epoch, of final/val/acc the
        chosen one. Lightning's log_hyperparams would log every metric again, at step 0, and list the settings in an
        Experiment, of which TensorBoard reads the first one that it finds. Without one it gathers the settings of all
        runs, and shows those first in which the runs differ.
        """
        self.log_metrics({f"final/{name}": metrics[name] for name in FINAL if name in metrics}, step)
        plain = {name: value if _is_number(value) else str(value) for name, value in settings.items()}
        _, start, end = hparams(plain, {})
        for summary in (start, end):
            self.experiment._get_file_writer().add_summary(summary)
        self.save()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
