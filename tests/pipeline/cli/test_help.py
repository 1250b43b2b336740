"""The help of every verb: groups, summaries, a sentence for each option; and the old names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pipeline import __main__ as program
from pipeline.cli.main import GROUPS, RENAMED, VERBS, cli
from runtime.__main__ import argument_parser as runtime_parser
from runtime.devices import DEVICES

CONTEXT = click.Context(cli, info_name="pipeline", **cli.context_settings)


def invoke(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli, words)


def command_of(verb: str) -> click.Command:
    command = cli.get_command(CONTEXT, verb)
    assert command is not None
    return command


def commands() -> Iterator[tuple[str, click.Command]]:
    for verb in (*VERBS, *RENAMED):
        command = command_of(verb)
        yield verb, command
        for name, inner in getattr(command, "commands", {}).items():
            yield f"{verb} {name}", inner


COMMANDS = dict(commands())
OPTIONS = {
    f"{name} {option.opts[0]}": option
    for name, command in COMMANDS.items()
    for option in command.get_params(CONTEXT)
    if isinstance(option, click.Option)
}


def test_help_lists_every_verb_in_its_group_with_the_whole_summary() -> None:
    text = invoke("--help").output
    assert max(map(len, text.splitlines())) <= 80
    for title, verbs in GROUPS.items():
        section = re.search(rf"^{title}:\n((?:  .+\n)+)", text, re.MULTILINE)
        assert section is not None
        rows = [tuple(line.split(maxsplit=1)) for line in section[1].splitlines()]
        assert rows == [(verb, summary) for verb, (_, summary) in verbs.items()]
    assert not any(f"  {old} " in text for old in RENAMED)


@pytest.mark.parametrize("verb", VERBS)
def test_a_summary_is_a_short_sentence_and_begins_the_help_of_its_verb(verb: str) -> None:
    summary, command = VERBS[verb][1], command_of(verb)
    assert len(summary) <= 60 and summary[0].isupper() and summary.endswith(".")
    assert command.help is not None and command.help.split("\n\n")[0] == summary
    assert command.name == verb


@pytest.mark.parametrize("name", COMMANDS)
def test_help_works_by_both_options(name: str) -> None:
    for option in ("-h", "--help"):
        result = invoke(*name.split(), option)
        assert result.exit_code == 0 and result.output.startswith(f"Usage: pipeline {name} ")


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_an_option_has_a_sentence_and_its_default(option: click.Option) -> None:
    assert option.help is not None
    sentence, _, default = option.help.partition("  [default: ")
    assert sentence[0].isupper() and sentence.endswith(".") and len(sentence.split()) > 2
    if not (option.is_flag or option.required or option.opts[0] in ("--set", "--grid")):
        assert bool(option.show_default) != default.endswith("]")  # by click, or in the text


def test_devices_are_those_of_the_runtime() -> None:
    for verb in ("predict", "selftest"):
        assert f"[{'|'.join(['auto', *DEVICES])}]" in invoke(verb, "--help").output
        refused = invoke(verb, "bundle.zip", *["x.png"] * (verb == "predict"), "--device", "tpu")
        assert refused.exit_code == 2 and all(f"'{name}'" in refused.output for name in DEVICES)


@pytest.mark.parametrize("verb", ["predict", "selftest"])
def test_a_verb_has_the_options_of_its_twin_in_the_runtime(verb: str) -> None:
    verbs = runtime_parser("runtime", "")._subparsers._group_actions[0].choices  # type: ignore
    twin = {word for action in verbs[verb]._actions for word in action.option_strings}
    assert twin <= {word for option in command_of(verb).get_params(CONTEXT) for word in option.opts}


# --- old names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "verbs"),
    [
        (["quantize", "m.onnx", "--data", "d"], ["quantize-onnx", "m.onnx", "--data", "d"], 1),
        (["package", "b.zip", "--kit", "arm64"], ["kit", "b.zip", "--platform", "arm64"], 2),
        (["package", "b.zip", "--web", "w"], ["web", "b.zip", "--out", "w"], 2),
    ],
)
def test_an_old_name_does_the_same_and_prints_the_new_one(
    old: list[str], new: list[str], verbs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # nothing that they name exists
    by_old, by_new = invoke(*old), invoke(*new)
    note, _, rest = by_old.stderr.partition("\n")
    assert note.startswith("note: ") and note.count("`pipeline ") == 1 + verbs
    assert f"`pipeline {old[0]}`" in note and f"`pipeline {new[0]}`" in note
    assert (by_old.exit_code, by_old.stdout, rest) == (1, by_new.stdout, by_new.stderr)
    assert by_new.exit_code == 1 and by_new.stderr.startswith("error: ")


def test_package_without_anything_to_write_is_wrong_usage() -> None:
    result = invoke("package", "b.zip")
    assert result.exit_code == 2 and "--kit" in result.stderr and "--web" in result.stderr


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("/usr/bin/pipeline", "pipeline"),
        ("/usr/bin/edgeproof", "edgeproof"),
        ("C:/Scripts/edgeproof.exe", "edgeproof"),
        ("/src/pipeline/__main__.py", "pipeline"),
    ],
)
def test_usage_and_hints_have_the_name_that_was_called(
    called: str,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, text in (
        (["show", "--help"], f"Usage: {shown} show "),
        (["show", "--artifacts", str(tmp_path)], f"Run: {shown} run all"),
    ):
        monkeypatch.setattr("sys.argv", [called, *words])
        with pytest.raises(SystemExit):
            program.main()
        assert text in "".join(capsys.readouterr())
