"""Hydra glue: the location of conf/, names of run folders, error sentences, composition."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from handwriting.runs.record import flatten, has_influence, setting_of
from handwriting.utils.errors import UserError, did_you_mean

PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel conf/ is inside the package, in a clone beside it.
CONF = next((folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()), PACKAGE / "conf")
LONGEST_NAME = 180  # characters; file systems allow 255 bytes


def name_folder(overrides: Iterable[str], skip: Iterable[str] = ()) -> str:
    """Return the folder name of a run: its overrides by key, as in ``optim=adam,seed=1``; ``default`` without any.

    Overrides of NOT_SETTINGS and those in ``skip`` are omitted; characters not allowed in file names become ``_``. Of
    ``init_from`` there is the end of its path.
    """
    left_out = set(skip)
    kept = [o for o in overrides if o not in left_out and has_influence(setting_of(o))]
    kept.sort(key=lambda override: override.split("=")[0].lstrip("+"))
    kept = [_with_end_of_path(override) if setting_of(override) == "init_from" else override for override in kept]
    name = re.sub(r"[^\w=,.+~\[\]-]", "_", ",".join(kept)) or "default"
    if len(name.encode()) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = name.encode()[: LONGEST_NAME - 9].decode(errors="ignore") + "-" + digest
    return name


def _with_end_of_path(override: str) -> str:
    """Return ``init_from=PATH`` with the last two parts of the path: those of a run, and of a snapshot its name too."""
    key, _, value = override.partition("=")
    path, snapshot = Path(value.strip("\"'")), []
    if path.parent.name == "checkpoints":
        path, snapshot = path.parents[1], [path.name] * (path.name != "best.ckpt")
    return f"{key}={'_'.join([*path.parts[-2:], *snapshot])}"


def _run_folder(*, _root_: DictConfig) -> str:
    # Omit what is already the name of the parent folder.
    name = _check_name(_root_.name)
    return name_folder(_root_.hydra.overrides.task, skip=(f"data={name}", f"experiment={name}", f"debug={name}"))


def _check_name(name: Any) -> str:
    """Return ``name``; UserError unless it names a folder under outputs/."""
    parts = str(name or "").split("/")
    if not name or any(part.strip() in ("", ".", "..") for part in parts) or "\\" in str(name):
        raise UserError(
            f"name={'null' if name is None else name} must name a folder under outputs/, such as name=study."
        )
    return str(name)


def digest_of_request(overrides: Iterable[str], sources: Iterable[Any]) -> str:
    """Return a hash of what decides a job: its overrides, in order, and the content of its config files.

    ``sources`` are those of hydra.runtime.config_sources. The name of the folder counts, the rest of NOT_SETTINGS not.
    """
    kept = [o for o in overrides if setting_of(o) == "name" or has_influence(setting_of(o))]
    folders = tuple(source["path"] for source in sources if source["schema"] == "file")
    return hashlib.sha256("\n".join([*kept, _digest_of_files(folders)]).encode()).hexdigest()[:16]


@lru_cache
def _digest_of_files(folders: tuple[str, ...]) -> str:
    files = [(file, folder) for folder in folders for file in sorted(Path(folder).rglob("*.yaml"))]
    lines = [f"{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file, folder in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def mode_of(metric: str) -> str | None:
    """Return which value of a metric is better, "min" for a loss and "max" for an accuracy; None for others."""
    kind = str(metric).rpartition("/")[2]
    if kind.endswith("loss"):
        return "min"
    return "max" if kind == "acc" or kind.startswith("top") else None


OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
OmegaConf.register_new_resolver("basename", lambda path: Path(path).name, replace=True)
OmegaConf.register_new_resolver("mode_of", lambda metric: mode_of(metric) or "max", replace=True)


def help_text() -> str:
    """Return the text of --help: the same as Hydra's, without the one or two seconds that Hydra needs."""
    template = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["hydra"]["help"]["template"]
    choices = [f"{group}: {', '.join(choices_of(group))}" for group in groups()]
    return template.replace("$APP_CONFIG_GROUPS", "\n".join(choices) + "\n")


def count_jobs(overrides: Iterable[str], params: dict[str, Any] | None) -> int:
    """Return how many jobs a sweep over these overrides has; ``params`` are the sweeper's own, from a file."""
    lines = [f"{key}={value}" for key, value in (params or {}).items()] + list(overrides)
    lengths = {}
    for override in _parser().parse_overrides(lines):
        discrete = override.is_discrete_sweep()
        lengths[override.get_key_element()] = sum(1 for _ in override.sweep_string_iterator()) if discrete else 1
    return prod(lengths.values())


def sweep_values(setting: str, overrides: Iterable[str]) -> list[str]:
    """Return the values of a setting in a sweep; none if it is not swept."""
    for override in _parser().parse_overrides(list(overrides)):
        if override.get_key_element() == setting and override.is_discrete_sweep():
            return list(override.sweep_string_iterator())
    return []


def _parser() -> OverridesParser:
    hydra = GlobalHydra.instance()  # whose loader knows what glob(*) matches
    return OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None)


def explain(error: HydraException | OmegaConfBaseException, overrides: Sequence[str] = ()) -> str:
    """Return a one-sentence explanation of an error in a command line or config, with the most similar known name.

    ``overrides`` are those of the command, which name the choices of groups.
    """
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options:
        return _explain_choice(error)
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override} cannot be read as setting=value; a list is written [32,64], and a value with "
            "special characters in two pairs of quotes, such as 'name=\"…\"'."
        )
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{several[1]} gives several values: add -m to run each of them, or write the list as [a,b]."
    if unknown := re.search(r"Could not override '([^']+)'", text):
        name, known = unknown[1], known_settings()
        group, _, setting = name.partition(".")
        if not setting and group in groups():
            return f"This choice of {group} has no settings to override: write +{group}=…"
        empty = group in groups() and not any(
            one.startswith(f"{group}.") for one in known
        )  # by default: scheduler=none
        if name in known or empty:
            chosen = next(
                (one for one in reversed(overrides) if one.startswith(f"{group}=")), f"this choice of {group}"
            )
            return f"{chosen} has no setting {setting!r}: leave it out, or choose another {group}."
        return f"There is no setting {name!r}.{did_you_mean(name, known)} --help lists them."
    if "Interpolation key 'data.name' not found" in text:
        return (
            "The config file of data has no name: begin it with defaults: [_base, _self_] (of a LightningDataModule: "
            "[_lightning, _self_]) and name: NAME."
        )
    return _first_line(error).removeprefix(
        "UserError raised while resolving interpolation: "
    )  # from one of our resolvers


def compose_data(trained: dict[str, Any], overrides: Sequence[str], folders: Iterable[Path] = ()) -> dict[str, Any]:
    """Return the data settings of a trained model, or those of ``data=CHOICE``, with overrides.

    A choice may also be in one of the config ``folders``.

    Raises UserError for an unknown choice or setting.
    """
    chosen = [override for override in overrides if override.startswith("data=")]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = OmegaConf.create({"data": trained})
            if chosen:
                config = compose("config", overrides=[*chosen, *_search(folders)])
        for override in overrides:
            key, _, value = override.partition("=")
            if key != "data":
                OmegaConf.set_struct(config, True)
                OmegaConf.update(config, key, yaml.safe_load(value))
        return OmegaConf.to_container(config.data, resolve=True)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, overrides)) from error
    except yaml.YAMLError as error:
        raise UserError(f"A setting of {', '.join(overrides)} cannot be read as setting=value.") from error


def compose_group(group: str, choice: str, folders: Iterable[Path] = ()) -> dict[str, Any]:
    """Return the settings of a choice of a group, such as augment=affine. Raises UserError for an unknown choice.

    A choice may also be in one of the config ``folders``.
    """
    within = GlobalHydra.instance().is_initialized()  # within a job, Hydra is already initialised
    try:
        with nullcontext() if within else initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", [f"{group}={choice}", *_search(folders)])
            return OmegaConf.to_container(config[group], resolve=True)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error


def augmentation_of_views(settings: Mapping[str, Any], folders: Iterable[Path] = ()) -> Any:
    """Return the settings of the augmentation for TTA: that of tta.augment, or else that of training."""
    views = settings.get("tta")
    chosen = views.get("augment") if isinstance(views, Mapping) else None
    return compose_group("augment", chosen, folders) if chosen else settings.get("augment")


def _search(folders: Iterable[Path]) -> list[str]:
    """Return the override that lets Hydra also look for config files in ``folders``."""
    places = [f"file://{folder}" for folder in folders]
    return [f"hydra.searchpath={json.dumps(places)}"] if places else []


def known_settings() -> list[str]:
    """Return every dotted name of the default config, and its groups."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config")
    names = set(groups())
    for leaf in flatten(OmegaConf.to_container(config, resolve=False)):  # type: ignore[arg-type]
        parts = leaf.split(".")
        names.update(".".join(parts[: i + 1]) for i in range(len(parts)))
    return sorted(names)


def groups() -> list[str]:
    """Return the names of the config groups: data, model, optim …"""
    return sorted(entry.name for entry in CONF.iterdir() if entry.is_dir())


def choices_of(group: str) -> list[str]:
    """Return the choices of a group in conf/; files whose names begin with _ are shared by others and omitted."""
    files = [file.relative_to(CONF / group) for file in (CONF / group).rglob("*.yaml") if not file.name.startswith("_")]
    return sorted(file.with_suffix("").as_posix() for file in files)


def _explain_choice(error: MissingConfigException) -> str:
    group, _, choice = (error.missing_cfg_file or "").partition("/")
    own = [option for option in error.options or () if not option.startswith("_")]
    options = sorted({*own, *(choices_of(group) if group in groups() else ())})
    return f"{group}={choice} is not a choice of {group}.{did_you_mean(choice, options)} Known: {', '.join(options)}."


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")[0].split())
