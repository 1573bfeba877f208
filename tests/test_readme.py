"""The two READMEs say the same, name what exists, and use the words that the project agreed on."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from handwriting.compare import main as compare
from handwriting.runs.config import choices_of, groups, help_text

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
READMES = pytest.mark.parametrize("readme", [ENGLISH, CHINESE], ids=lambda path: path.name)
COMMANDS = ("run", "compare", "evaluate", "predict", "draw", "export", "data.characters")

# The words to avoid, as patterns, and what to write instead.
AVOID = {
    r"reads": "predicts, classifies; accuracy",
    r"reading": "prediction",
    r"readings": "predictions",
    r"misreads?": "misclassifies, misclassified",
    r"(?-i:readers?)(?!\.py)": "model, loader, classical baseline (Reader is the API's name)",
    r"(training|validation|test) parts?": "training set, validation set, test set; split",
    r"crafts?": "technique, ablation",
    r"goes on|going on": "resumes, continues",
    r"anew": "restarts, retrains",
    r"verdicts?": "comparison",
    r"proves? nothing|what they prove": "inconclusive (n = 1)",
    r"(is|are) (not )?shown|no difference shown": "significant, not significant",
    r"(?<!percentage )points (more|less|over|under)|\d points": "percentage points",
    r"\d( M)? weights": "parameters",
    r"bent views?|moved views?": "elastic or shifted test-time augmentation (TTA)",
    r"twins?": "duplicate classes",
    r"clean epochs": "final epochs without augmentation",
    r"fixed variants?": "offline augmentation",
    r"whom to trust": "stacking",
    r"bare loop": "plain PyTorch loop",
    r"student's loop": "naive DataLoader loop",
    r"settled (alike|likewise)": "same thread settings",
    r"sittings?": "session",
    r"in sight": "after looking at test results",
    r"(?<!-)(?-i:hosts?)": "machine",
    r"that is no number": "NaN or infinite loss",
    r"ink": "foreground",
}
NO_LEADING_ZERO = re.compile(r"(?<![\w.)\]…*'/])\.\d+")


def avoided(text: str) -> list[str]:
    """Return each word of ``text`` that is to be avoided, with what to write instead."""
    plain = " ".join(text.split())
    found = []
    for pattern, better in AVOID.items():
        for match in re.finditer(rf"\b({pattern})\b", plain, re.IGNORECASE):
            around = plain[max(0, match.start() - 40) : match.end() + 40]
            found.append(f"{match[0]!r} in “…{around}…”: write {better}")
    for match in NO_LEADING_ZERO.finditer(plain):
        found.append(
            f"{match[0]!r} in “…{plain[max(0, match.start() - 40) : match.end() + 40]}…”: write a leading zero"
        )
    return found


def blocks(readme: Path) -> list[tuple[str, str]]:
    """Return the kind and the content of each block of code, without its comments but for the name of a file."""

    def bare(kind: str, line: str) -> str:
        if kind == "text" or re.fullmatch(r"# \S+/\S+\.\w+", line):
            return line
        return re.split(r"(?:^|\s)#", line)[0].rstrip()

    found = re.findall(r"^```(\w*)\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [(kind, "\n".join(bare(kind, line) for line in content.splitlines())) for kind, content in found]


def table_rows(readme: Path) -> dict[str, list[str]]:
    """Return the cells after the first of each row that begins with a setting, by the setting's name."""
    rows = re.findall(r"^\| `([\w.]+)=`[^|]*\|(.*)\|$", readme.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: rest.split("|") for name, rest in rows}


def test_both_readmes_have_the_same_commands():
    english, chinese = blocks(ENGLISH), blocks(CHINESE)
    assert len(english) > 10
    assert [kind for kind, _ in english] == [kind for kind, _ in chinese]
    for (kind, block), (_, translated) in zip(english, chinese, strict=True):
        if not block.startswith("handwriting/ "):  # the tree of folders has descriptions
            assert block == translated, kind


def test_both_readmes_have_the_same_figures():
    def figures(readme: Path) -> list[str]:
        return sorted(re.findall(r"\d+\.\d+(?: ± \d+\.\d+)?", readme.read_text(encoding="utf-8")))

    assert figures(ENGLISH) == figures(CHINESE)


@READMES
def test_every_local_link_and_picture_exists(readme: Path):
    links = re.findall(r"\]\(([^)]+)\)", readme.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert {"notebooks/results.md", (CHINESE if readme == ENGLISH else ENGLISH).name} <= set(local)
    assert [link for link in local if not (ROOT / link.split("#")[0]).is_file()] == []


@READMES
def test_pictures_are_small(readme: Path):
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme.read_text(encoding="utf-8"))
    assert pictures
    assert [picture for picture in pictures if (ROOT / picture).stat().st_size > 300_000] == []


@READMES
@pytest.mark.parametrize("group", groups())
def test_the_list_of_choices_is_complete(readme: Path, group: str):
    listed = re.findall(r"`([^`]+)`", table_rows(readme)[group][0])
    assert sorted(listed) == choices_of(group)


@READMES
def test_every_choice_in_a_command_exists(readme: Path):
    text = readme.read_text(encoding="utf-8")
    added = set(re.findall(r"^# \w+/(\w+/\w+)\.yaml$", text, re.MULTILINE))  # by the README's own steps
    used = re.findall(rf"(?<![\w/])({'|'.join(groups())})=([\w/]+(?:,[\w/]+)*)", text)
    assert used
    unknown = [
        f"{group}={choice}"
        for group, choices in used
        for choice in choices.split(",")
        if choice not in choices_of(group) and choice not in groups() and f"{group}/{choice}" not in added
    ]
    assert unknown == []


def test_every_command_has_a_section_that_uses_it():
    code = "\n".join(block for kind, block in blocks(ENGLISH) if kind == "sh")
    assert [name for name in COMMANDS if f"python -m handwriting.{name} " not in code] == []


@pytest.mark.parametrize("file", ["README.md", "notebooks/results.md"])
def test_words_to_avoid_are_not_in_the_text(file: str):
    text = (ROOT / file).read_text(encoding="utf-8")
    prose = re.sub(r"^```(sh|python|yaml)\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    assert avoided(re.sub(r"\]\([^)]*\)", "]", prose)) == []


def test_words_to_avoid_are_not_in_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "120")
    texts = {"run": help_text()}
    for name in COMMANDS[1:]:
        with pytest.raises(SystemExit):
            importlib.import_module(f"handwriting.{name}").main(["--help"])
        texts[name] = capsys.readouterr().out
    assert all(texts.values())
    assert {name: found for name, text in texts.items() if (found := avoided(text))} == {}


def test_words_to_avoid_are_not_in_a_report(
    tmp_path: Path, make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for seed in range(3):
        make_run(tmp_path / "outputs/digits", "optim=adam", f"seed={seed}", accuracy=0.95 + seed / 1000)
        make_run(tmp_path / "outputs/digits", "optim=sgd", f"seed={seed}", accuracy=0.90 + seed / 1000)
        make_run(tmp_path / "outputs/single", f"optim={('sgd', 'adam', 'adagrad')[seed]}")
    make_run(tmp_path / "outputs/digits", "optim=adagrad", status="failed", error="The disk is full.")
    compare(["outputs/digits", "outputs/single"])
    printed = capsys.readouterr().out
    summary = (tmp_path / "outputs/digits/summary.md").read_text(encoding="utf-8")
    assert avoided(printed) == []
    assert avoided(summary) == []
    for table in (printed, summary):
        assert re.search(r"\bconfiguration\b", table)
        assert re.search(r"\bparameters\b", table)
        assert not re.search(r"\b(setting|weights)\b", table)


@pytest.mark.parametrize(
    "text", ["It reads well.", "the test part", "by .14 points", "0.2 points more", "-.5", "(.04)"]
)
def test_a_word_to_avoid_is_found(text: str):
    assert avoided(text)


@pytest.mark.parametrize(
    "text",
    [
        "Reader.load",
        "--host HOST",
        "images.mat",
        "0.14 percentage points",
        "the training images",
        "*.png",
        "link",
        "1.3.2",
    ],
)
def test_other_words_are_not_found(text: str):
    assert not avoided(text)
