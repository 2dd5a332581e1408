"""What the documentation tells people to type: fenced blocks, and the simple commands in lines of shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from jobs.__main__ import ANYWHERE, app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.joinpath("docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = frozenset({"sh", "bash", "shell"})
# Programs that people are told to run, by us or by others; a first word that is none of these is a typing mistake.
PROGRAMS = frozenset({".", "cd", "cp", "curl", "docker", "export", "footage", "hf", "ls", "make", "mkdir", "mount"})
PROGRAMS |= {"nvidia-smi", "pip", "pytest", "python", "ray", "set", "systemctl", "test", "ulimit", "exit"}
PROGRAMS |= {"kubectl", "sbatch"}
ENDS = frozenset({"|", "||", "&&", ";", "&"})
REDIRECTIONS = frozenset({">", ">>", "<"})
# What may stand before the command that a line is about, with how many words of its own.
BEFORE = {"flock": 3, "nice": 3, "nohup": 1, "time": 1, "/usr/bin/env": 1, "sudo": 1}
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*")
GROUP = typer.main.get_command(app)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, and a file's name where the fence has one."""

    page: str
    line: int
    language: str
    name: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One simple command of a line of shell, without what stands before it."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    return [_block(name, text, found) for found in FENCE.finditer(text)]


def _block(page: str, text: str, found: re.Match[str]) -> Block:
    language, _, name = found[1].strip().partition(" ")
    return Block(page, text[: found.start()].count("\n") + 2, language, name.strip(), found[2])


def commands(block: Block) -> Iterator[Command]:
    """The simple commands of a block, by what kind of text it is."""
    for number, line in enumerate(_lines(block)):
        for words in _simple(line):
            yield Command(f"{block.where} (line {number + 1})", tuple(words))


def is_plainly_shell(block: Block) -> bool:
    """Whether a block without a language is shell, by its first words."""
    firsts = {line.split()[0] for line in block.text.splitlines() if line.strip()}
    return not block.language and bool(firsts & PROGRAMS)


def _lines(block: Block) -> list[str]:
    """Lines of shell: those of shell blocks, and those that other formats hold."""
    if block.language in SHELL or is_plainly_shell(block):
        return block.text.replace("\\\n", " ").splitlines()
    if block.language == "cron":
        return [line.split(maxsplit=5)[5] for line in block.text.splitlines() if line.strip()]
    if block.language == "ini":
        return [line.partition("=")[2] for line in block.text.splitlines() if line.startswith("ExecStart=")]
    if block.language == "yaml":
        return [
            line.strip().removeprefix("- ") for line in block.text.splitlines() if "footage " in line and ";" in line
        ]
    return []


def _simple(line: str) -> Iterator[list[str]]:
    """The simple commands of a line; comments, redirections and assignments are no part of them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    is_target = False  # of a redirection
    for word in [*lexer, ";"]:
        if word in REDIRECTIONS:
            is_target = True
            words = words[:-1] if words[-1:] == ["2"] else words  # 2>: of stderr
        elif word in ENDS:
            yield from filter(None, [_stripped(words)])
            words = []
        elif is_target:
            is_target = False
        else:
            words.append(word)


def _stripped(words: list[str]) -> list[str]:
    """A command without assignments and the programs that run it."""
    while words and ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    while words and words[0] in BEFORE:
        words = words[BEFORE[words[0]] :]
    if "--wrap" in words:  # sbatch runs what is quoted
        words = shlex.split(words[words.index("--wrap") + 1])
    if words[:3] == ["ray", "job", "submit"] and "--" in words:
        words = words[words.index("--") + 1 :]
    return words


def parse(words: tuple[str, ...]) -> tuple[str, dict[str, object]]:
    """The name and the parameters of a `footage` command line, by the real parser; raises what it raises."""
    given = list(words[1:])
    moved = [*(each for each in ANYWHERE if each in given), *(each for each in given if each not in ANYWHERE)]
    outer = GROUP.make_context("footage", moved)
    name, command, rest = GROUP.resolve_command(outer, [*outer._protected_args, *outer.args])
    return name, command.make_context(name, rest, parent=outer).params
