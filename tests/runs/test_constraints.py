"""Every constraint of the table: it belongs to a setting of conf/, lets its limits pass and refuses what is beyond."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import zip_longest
from math import inf, nan, nextafter
from pkgutil import resolve_name
from typing import Any, NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from handwriting.data.augment import Blur
from handwriting.models.classic import RESNET_BLOCKS, VGG_LAYERS
from handwriting.models.net import Net
from handwriting.runs.checks import check_settings
from handwriting.runs.config import CONF, choices_of, groups
from handwriting.runs.constraints import (
    CONSTRAINTS,
    SETTINGS,
    Constraint,
    Names,
    Number,
    Numbers,
    OneOf,
    Text,
    Whole,
    Wholes,
    constraints_of,
)
from handwriting.runs.instantiate import build, check_part
from handwriting.utils.errors import UserError, is_number

ENTRIES = [(maker, name) for maker, constraints in CONSTRAINTS.items() for name in constraints]
NO_PARTS = ("callbacks", "search")  # of the config's tables without a target


class Node(NamedTuple):
    """What a composed config makes: a part, such as augment, or what lies in it, at a path such as steps.warp."""

    kind: str
    part: dict[str, Any]
    path: tuple[str, ...]

    @property
    def content(self) -> dict[str, Any]:
        inner = self.part
        for key in self.path:
            inner = inner[key]
        return inner

    @property
    def place(self) -> str:
        return ".".join((self.kind, *self.path))

    def with_value(self, name: str, value: object) -> dict[str, Any]:
        changed = Node(self.kind, deepcopy(self.part), self.path)
        changed.content[name] = value
        return changed.part


@pytest.fixture(scope="module")
def configs() -> list[DictConfig]:
    """Composed configs in which every choice of every group occurs."""
    choices = {group: choices_of(group) for group in groups() if group not in ("experiment", "debug")}
    jobs = [[f"{group}={choice}" for group, choice in zip(choices, row, strict=True) if choice] for row in
            zip_longest(*choices.values())]  # fmt: skip
    jobs += [[f"{group}={choice}"] for group in ("experiment", "debug") for choice in choices_of(group)]
    composed = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for job in jobs:
            config = compose("config", [*job, "hydra.runtime.output_dir=here"], return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            OmegaConf.resolve(own)
            composed.append(own)
    return composed


@pytest.fixture(scope="module")
def nodes(configs: list[DictConfig]) -> list[Node]:
    """Every node of the configs that makes something."""

    def inside(kind: str, part: dict[str, Any], path: tuple[str, ...], content: dict[str, Any]) -> Iterator[Node]:
        if "_target_" in content:
            yield Node(kind, part, path)
        for key, inner in content.items():
            if isinstance(inner, dict):
                yield from inside(kind, part, (*path, key), inner)

    found: list[Node] = []
    for config in configs:
        plain: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
        parts = plain | {f"callbacks.{name}": part for name, part in plain["callbacks"].items()}
        for kind, part in parts.items():
            if isinstance(part, dict) and "_target_" in part:
                found += inside(kind, part, (), part)
    return found


def tables_of(content: dict[str, Any]) -> list[Any]:
    """The constraints of what a node makes, and for a data set those of its loader, which gets the other settings."""
    makers = [content, *([content["read"]] if "read" in content else [])]
    return [constraints_of(resolve_name(maker["_target_"])) for maker in makers]


def node_with(nodes: list[Node], maker: str, name: str) -> Node:
    made = [node for node in nodes if any(table is CONSTRAINTS[maker] for table in tables_of(node.content))]
    return next(node for node in made if name in node.content)


def bad_values(constraint: Constraint) -> list[Any]:
    """Values just beyond the limits, and of other types."""
    bad: list[Any] = ["much", True, [[1]], {"a": 1}, *([] if constraint.optional else [None])]
    match constraint:
        case Whole(at_least=least, at_most=most):
            bad += [least - 1, least + 0.5, float(least), str(least), *([most + 1] if most < inf else [])]
        case Number():
            closed = [nextafter(constraint.at_least, -inf), nextafter(constraint.at_most, inf)]
            bad += [nan, inf, -inf, "0.5", *closed, constraint.above, constraint.below]
        case Wholes(shortest=shortest, at_most=most):
            bad += [64, [0], [32, -1], [1.0], [True], ["a"], [None], *([[]] if shortest else [])]
            bad += [[most + 1]] if most < inf else []
        case Numbers(like=like, each=each):
            bad += [like[0], like[:-1], [*like, like[0]], *([one, *like[1:]] for one in bad_values(each))]
        case OneOf(choices=choices):
            bad = [value for value in [*bad, "", 7, 0.5] if value not in choices]
        case Text():
            bad = ["", *(value for value in [*bad, 3] if not isinstance(value, str))]
        case Names():
            bad = [value for value in [*bad, "original", 3] if not isinstance(value, list)]
    return bad


def good_values(constraint: Constraint) -> list[Any]:
    """Values at the limits."""
    good: list[Any] = [None] if constraint.optional else []
    match constraint:
        case Whole(at_least=least, at_most=most):
            return [*good, least, most if most < inf else 10**9]
        case Number():
            least = max(constraint.at_least, nextafter(constraint.above, inf), -1e9)
            return [*good, least, min(constraint.at_most, nextafter(constraint.below, -inf), 1e9)]
        case Wholes(shortest=shortest, at_most=most):
            return [*good, [1] * shortest, (1, 2), [most if most < inf else 10**9] * 9]
        case Numbers(like=like, each=each):
            return [*good, *([one] * len(like) for one in good_values(each))]
        case OneOf(choices=choices):
            return [*good, *choices]
        case Text():
            return [*good, "outputs/mnist/default"]
    return [*good, ["original"], []]


def refuses(place: str, value: object, error: UserError) -> bool:
    """Whether an error is one sentence that begins with the setting and its value, or with one of a list's values."""
    sentence = str(error)
    values = [value, *value] if isinstance(value, (list, tuple)) else [value]
    named = any(sentence.startswith(f"{place}={one} must be ") for one in values)
    return named and sentence.endswith(".") and "\n" not in sentence


@pytest.mark.parametrize(("maker", "name"), ENTRIES, ids=lambda part: part.removeprefix("handwriting."))
def test_a_value_beyond_the_limits_or_of_another_type_is_refused(nodes: list[Node], maker: str, name: str):
    node, constraint = node_with(nodes, maker, name), CONSTRAINTS[maker][name]
    for value in bad_values(constraint):
        with pytest.raises(UserError) as caught:
            build(node.kind, node.with_value(name, value))
        assert refuses(f"{node.place}.{name}", value, caught.value), (value, str(caught.value))
    for value in good_values(constraint):
        check_part(node.kind, node.with_value(name, value))


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_of_the_run_is_refused_in_the_same_way(configs: list[DictConfig], setting: str):
    assert OmegaConf.select(configs[0], setting) is not None or SETTINGS[setting].optional
    for value in bad_values(SETTINGS[setting]):
        with pytest.raises(UserError) as caught:
            check_settings(with_setting(configs[0], setting, value))
        assert refuses(setting, value, caught.value), (value, str(caught.value))
    for value in good_values(SETTINGS[setting]):
        check_settings(with_setting(configs[0], setting, value))


def with_setting(config: DictConfig, setting: str, value: object) -> DictConfig:
    changed = deepcopy(config)
    with open_dict(changed):
        OmegaConf.update(changed, setting, value, merge=False)
    return changed


def test_every_default_passes(configs: list[DictConfig], nodes: list[Node]):
    for config in configs:
        check_settings(config)
    for node in nodes:
        if not node.path:
            check_part(node.kind, node.part)


def test_every_number_has_a_constraint(configs: list[DictConfig], nodes: list[Node]):
    def is_numeric(value: object) -> bool:
        return is_number(value) or (isinstance(value, list) and bool(value) and all(map(is_number, value)))

    forgotten = set()
    for node in nodes:
        target = node.content["_target_"]
        if target.startswith("handwriting."):
            known = {name for table in tables_of(node.content) for name in table}
            forgotten |= {(target, key) for key, one in node.content.items() if is_numeric(one) and key not in known}
    for config in configs:
        plain: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
        tables = {key: one for key, one in plain.items() if isinstance(one, dict) and key not in NO_PARTS}
        for prefix, table in {"": plain, **{f"{key}.": one for key, one in tables.items()}}.items():
            if "_target_" not in table:
                forgotten |= {prefix + key for key, one in table.items() if is_numeric(one)} - SETTINGS.keys()
    assert not forgotten


def test_what_is_refused_by_the_table_is_what_the_code_cannot_do():
    assert CONSTRAINTS["handwriting.models.classic.vgg"]["depth"] == OneOf(tuple(VGG_LAYERS))
    assert CONSTRAINTS["handwriting.models.classic.resnet"]["depth"] == OneOf(tuple(RESNET_BLOCKS))
    assert CONSTRAINTS["handwriting.data.augment.Blur"]["deviation"] == Number(at_least=0, at_most=Blur.RADIUS)


class Own(Net):
    """A user's class that takes what Net takes."""


class OwnWidths(Net):
    """A user's class that takes something else by the same name."""

    def __init__(self, num_classes: int, image_size: tuple[int, int], widths: str = "small"):
        super().__init__(num_classes, image_size, widths=[4] if widths == "small" else [8])


def test_own_classes_are_checked_where_they_take_what_ours_take(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("handwriting.models.net.Own", Own, raising=False)
    monkeypatch.setattr("handwriting.models.net.OwnWidths", OwnWidths, raising=False)
    with pytest.raises(UserError, match=r"^model\.widths=small must be a list"):
        build("model", {"_target_": "handwriting.models.net.Own", "widths": "small"})
    own = {"_target_": "handwriting.models.net.OwnWidths", "widths": "large"}
    assert isinstance(build("model", own, num_classes=3, image_size=(8, 8)), OwnWidths)


def test_a_step_is_checked_whatever_its_name():
    step = {"_target_": "handwriting.data.augment.Noise", "deviation": -1}
    with pytest.raises(UserError, match=r"^augment\.steps\.mine\.deviation=-1 must be a number, at least 0\.$"):
        build("augment", {"_target_": "handwriting.data.Augmentation", "steps": {"mine": step}})


@pytest.mark.parametrize(
    ("constraint", "value", "sentence"),
    [
        (Whole(1), 0, "x=0 must be a whole number of at least 1."),
        (Whole(2, 100), 1.5, "x=1.5 must be a whole number from 2 to 100."),
        (Number(), "low", "x=low must be a number."),
        (Number(), inf, "x=inf must be a number, not infinite."),
        (Number(at_least=0, below=1), 1, "x=1 must be a number, at least 0 and below 1."),
        (Wholes(), [0], "x=[0] must be a list of whole numbers of at least 1, as in [32,64]."),
        (Numbers((0.9, 0.999)), [0.9], "x=[0.9] must be 2 numbers, as in [0.9, 0.999]."),
        (Numbers((0.9, 0.999)), [0.9, "b"], "x=b must be a number."),
        (Names("[a,b]"), "a", "x=a must be a list, as in [a,b]."),
        (OneOf(("stop", "keep")), "go", "x=go must be stop or keep."),
        (OneOf((10, 18, 34)), 50, "x=50 must be one of 10, 18, 34."),
        (Number(above=0, says="above 0: a fraction (0.5)"), 0, "x=0 must be above 0: a fraction (0.5)."),
    ],
)
def test_the_sentence_says_what_the_value_must_be(constraint: Constraint, value: object, sentence: str):
    with pytest.raises(UserError) as caught:
        constraint.check("x", value)
    assert str(caught.value) == sentence
