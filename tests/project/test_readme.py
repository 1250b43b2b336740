"""The README and the other pages keep their promises: commands, names and files exist, and every
block of Python runs as printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from pipeline.cli.main import cli
from pipeline.cli.selection import Selection
from pipeline.datasets.drawn.drawn_digits import draw_digit
from pipeline.recipe import shipped_names
from pipeline.sweep.grid import parse, trials
from runtime.__main__ import argument_parser as runtime_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(ROOT / name for name in ("runtime/BUNDLE.md", "artifacts/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, in lists as well, without their indentation."""
    fences = re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block[3]) for block in fences if block[2] == language]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command in a bash block, and of every one in the text that is more than
    the mention of a verb: `make test`, `pipeline run all`, but not `pipeline run`."""
    lines = [line for block in blocks(text, "bash") for line in block.splitlines()]
    prose = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`(make [^`\n]+|pipeline [^`\s]+ [^`\n]+)`", prose)
    for line in lines:
        if words := shlex.split(line, comments=True):
            yield words


COMMANDS = [(page.name, words) for page in PAGES for words in commands(page.read_text("utf-8"))]

# recipes that the reader will have written by then
WRITTEN_BY_INIT = {f"{words[2]}.toml" for _, words in COMMANDS if words[:2] == ["pipeline", "init"]}


def commands_of(*programs: str) -> list[object]:
    """The commands whose first words are these, as parameters of a test."""
    return [
        pytest.param(words[len(programs) :], id=f"{page}: {shlex.join(words)}")
        for page, words in COMMANDS
        if words[: len(programs)] == list(programs)
    ]


@pytest.mark.parametrize("words", commands_of("make"))
def test_make_has_the_target(words: list[str]) -> None:
    targets = {word for word in words if "=" not in word}
    assert targets <= TARGETS


@pytest.mark.parametrize("words", commands_of("pipeline"))
def test_pipeline_understands_the_command(words: list[str]) -> None:
    """Parsed by the real command line, up to the point where it would run."""
    # with the settings of the whole: click keeps the names of --help from the first context
    whole = click.Context(cli, info_name="pipeline", **cli.context_settings)
    command = cli.get_command(whole, words[0])
    assert command is not None, words
    with command.make_context(words[0], list(words[1:]), parent=whole) as context:
        options = context.params
    if grids := options.get("grids"):
        assert trials(options["recipe"], parse(grids), options["changes"])
        return
    if options.get("names") or options.get("changes"):
        names = tuple(name for name in options["names"] if name not in WRITTEN_BY_INIT)
        assert Selection(names or ("mnist",), options["changes"], Path()).recipes()
    if name := options.get("recipe"):
        assert name in shipped_names()


@pytest.mark.parametrize("words", commands_of("pip", "install"))
def test_pip_installs_something_that_is_there(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for word in words:
        if match := re.fullmatch(r"(?:edgeproof|\.)\[([a-z,]+)\]", word):
            assert set(match[1].split(",")) <= set(project["optional-dependencies"])
        elif match := re.fullmatch(r"edgeproof_(\w+)-[\d.]+-py3-none-any\.whl", word):
            assert match[1].replace("_", "-") in shipped_names()


@pytest.mark.parametrize("words", commands_of("python", "-m"))
def test_a_package_has_the_verb(words: list[str]) -> None:
    package, verb, *rest = words
    wheels = {f"edgeproof_{name.replace('-', '_')}" for name in shipped_names()}
    assert package in {"runtime", *wheels}
    inside = "" if package == "runtime" else "bundle.zip"
    runtime_parser(package, inside).parse_args([verb, *rest])


def test_the_checks_above_refuse_what_is_not_there() -> None:
    for words in (["run", "al"], ["run", "all", "--recipes", "mnist"], ["show", "--json"]):
        with pytest.raises(click.UsageError):
            test_pipeline_understands_the_command(words)
    assert list(commands("```bash\nmake a # b\n\n```\n`pipeline run`, `pipeline run all`")) == [
        ["make", "a"],
        ["pipeline", "run", "all"],
    ]


@pytest.fixture
def desk(bundle: Path, model_wheel: Path, tmp_path: Path) -> Path:
    """A folder with all that the README's Python mentions."""
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "artifacts/mnist").mkdir(parents=True)
    shutil.copy(bundle, tmp_path / "artifacts/mnist/bundle.zip")
    image.fromarray(draw_digit(np.random.default_rng(1), 5)).save(tmp_path / "digit.png")
    return tmp_path


@pytest.mark.parametrize(
    "code", [pytest.param(c, id=f"block {i}") for i, c in enumerate(blocks(README, "python"), 1)]
)
def test_the_python_in_the_readme_runs(code: str, desk: Path, model_wheel: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=desk,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(model_wheel)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_readme_shows_how_to_embed_the_predictor() -> None:
    code = "\n".join(blocks(README, "python"))
    assert "from runtime import Predictor" in code and "from edgeproof_mnist import" in code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    files = [target.partition("#")[0] for target in targets if "://" not in target]
    missing = [name for name in files if name and not (page.parent / name).exists()]
    assert not missing, f"{page.name} links to {missing}"
