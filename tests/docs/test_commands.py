"""Everything that the documentation tells people to type: it is a command of ours, with options that there are."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import typer

from jobs.examples import EXAMPLES
from tests.docs.blocks import FENCE, GROUP, PAGES, PROGRAMS, ROOT, SHELL, Block, Command, blocks, commands, parse

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [command for block in BLOCKS for command in commands(block)]
LANGUAGES = SHELL | {"", "text", "python", "yaml", "csv", "cron", "ini", "json", "toml", "promql", "dockerfile"}
INLINE = re.compile(r"`(footage [^`]+)`")
ANYWHERE_TOO = {"--debug", "--log-json", "--help"}
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)")
EXTRA = re.compile(r"footage\[([a-z0-9,]+)\]")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
UsageError = typer.BadParameter.__bases__[0]  # of the parser that typer brings
ALL_COMMANDS = GROUP.commands


def of_program(name: str) -> list[Command]:
    return [command for command in COMMANDS if command.words[0] == name]


def test_there_is_something_to_look_at() -> None:
    assert len(of_program("footage")) > 60
    assert {block.page for block in BLOCKS} >= {"README.md", "docs/scheduling.md", "docs/index-a-nas.md"}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_line_runs_a_program_that_we_know(command: Command) -> None:
    assert command.words[0] in PROGRAMS, f"{command} runs none of {sorted(PROGRAMS)}: a typing mistake?"


@pytest.mark.parametrize("command", of_program("footage"), ids=str)
def test_a_command_line_of_ours_parses(command: Command) -> None:
    try:
        parse(command.words)
    except typer.Exit:  # --version, --help
        return


@pytest.mark.parametrize("command", of_program("make"), ids=str)
def test_make_has_the_target(command: Command) -> None:
    targets = re.findall(r"^([a-z-]+):", ROOT.joinpath("Makefile").read_text(), re.MULTILINE)
    assert set(command.words[1:]) - {word for word in command.words if "=" in word} <= set(targets)


@pytest.mark.parametrize("command", of_program("python"), ids=str)
def test_python_is_given_a_file_or_module_of_ours(command: Command) -> None:
    if command.words[1] == "-m":
        assert ROOT.joinpath(*command.words[2].split(".")).with_suffix(".py").is_file()
    elif command.words[1] != "-c":
        assert ROOT.joinpath(command.words[1]).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_extras_are_those_of_the_package(page: Path) -> None:
    extras = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {each for found in EXTRA.findall(page.read_text()) for each in found.split(",")}
    assert named - {"all"} <= set(extras)


def prose(page: Path) -> str:
    """A page without its blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_sentences_have_the_options_named(page: Path) -> None:
    wrong = []
    for text in INLINE.findall(prose(page)):
        name = next(iter(re.findall(r"^footage (?:--[a-z-]+ )*([a-z-]+)", text)), "")
        if name not in ALL_COMMANDS:
            wrong += [text] if not text.startswith("footage --") else []
            continue
        known = {each for option in ALL_COMMANDS[name].params for each in (*option.opts, *option.secondary_opts)}
        wrong += [f"{text}: {option}" for option in OPTION.findall(text) if option not in known | ANYWHERE_TOO]
    assert wrong == []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda block: block.where)
def test_python_compiles_and_imports_what_we_have(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in {
            "pipeline",
            "jobs",
            "xclip_core",
            "schemas",
        }:
            module = __import__(node.module, fromlist=[alias.name for alias in node.names])
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(prose(page)) if "://" not in target]
    assert [target for target in targets if not page.parent.joinpath(target).exists()] == []


def test_the_index_of_the_documentation_lists_every_page() -> None:
    listed = set(LINK.findall(ROOT.joinpath("docs/README.md").read_text()))
    pages = {page.name for page in PAGES if page.parent.name == "docs"} - {"README.md"}
    assert pages - listed == set()


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_the_help_of_a_command_ends_with_examples_that_parse(name: str) -> None:
    lines = EXAMPLES[name]
    assert 2 <= len(lines) <= 3
    command = ALL_COMMANDS[name]
    said = command.get_help(command.make_context(name, [], resilient_parsing=True))
    assert said.rstrip().endswith(lines[-1])
    for line in lines:
        (found,) = commands(Block("help", 0, "sh", "", line))
        assert parse(found.words)[0] == name
        assert f"  {line}\n" in f"{said}\n", "a line is broken in two"


@pytest.mark.parametrize(
    "line",
    [
        "footage index VIDEOS my_archive --dryrun",
        "footage serach my_archive x",
        "footage tag my_archive",
        "footage index VIDEOS my_archive --engine steam",
    ],
)
def test_a_typing_mistake_would_be_found(line: str) -> None:
    (command,) = commands(Block("a page", 1, "sh", "", line))
    with pytest.raises(UsageError):
        parse(command.words)
