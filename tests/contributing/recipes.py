"""Reads the recipes of CONTRIBUTING.md and does in a copy of the repository what they say.

What can be done stands in fenced blocks. A block of `python` is a whole file, a block of `diff` an edit; the first
line of either is a comment with the file's path. In a diff, what the lines with ` ` and `-` say must stand in the
file exactly once and becomes what those with ` ` and `+` say. A block of `sh` is what a person types.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.paths import REPOSITORY
from tests.architecture.source import tracked_files

_STAMP = ".venv/.installed"  # what make would install first
_OF_A_MAKE_ABOVE = frozenset({"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"})
_COMMAND_TIMEOUT_S = 300.0
_BLOCK = re.compile(r"^ *```(python|diff|sh)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"# (\S+)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language and its text, without the indentation of the list that it stands in."""

    language: str
    text: str


class Scratch:
    """A copy of the repository, as it would be committed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.written: set[str] = set()
        """What recipes have written or changed, as paths below the root."""
        for path in tracked_files():
            copy = root / path.relative_to(REPOSITORY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
        (root / ".venv").symlink_to(sys.prefix)
        self._run(["git", "init", "-q"])  # some tests ask git what there is

    def follow(self, title: str) -> list[str]:
        """Do what the recipe's files and diffs say, in order; returns what it has people type, line by line."""
        typed: list[str] = []
        for block in recipe(title):
            if block.language == "sh":
                typed += block.text.splitlines()
            else:
                self._apply(block)
        return typed

    def make(self, line: str) -> str:
        """Run a line `make …` and return what it printed. Fails with that when it fails."""
        command, *rest = line.split()
        assert command == "make"
        # The copy has this repository's packages: nothing is to be installed, however old the copies look.
        # Nor is it the child of a make that runs the tests, and would say which directory it enters.
        own = {name: value for name, value in os.environ.items() if name not in _OF_A_MAKE_ABOVE}
        return self._run(["make", "-o", _STAMP, *rest], own)

    def python(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        """Run Python in the copy and return what it printed. Fails with that when it fails."""
        return self._run([sys.executable, *arguments], environment)

    def _run(self, command: list[str], environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_COMMAND_TIMEOUT_S,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout[-6_000:]}"
        return done.stdout

    def _apply(self, block: Block) -> None:
        found = _ADDRESS.match(block.text)
        assert found, f"the first line of a block must name a file: {block.text[:80]!r}"
        place, text = self.root / found[1], block.text[found.end() :]
        self.written.add(found[1])
        if block.language == "python":
            assert not place.exists(), f"{found[1]} is there already"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            return
        before = "".join(f"{line[1:]}\n" for line in text.splitlines() if not line.startswith("+"))
        after = "".join(f"{line[1:]}\n" for line in text.splitlines() if not line.startswith("-"))
        whole = place.read_text()
        times = whole.count(before)
        assert times == 1, f"{found[1]} must have this once, and not {times} times:\n{before}"
        place.write_text(whole.replace(before, after))


def recipe(title: str) -> list[Block]:
    """The blocks under the heading `### <title>`."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    found = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert found, f"CONTRIBUTING.md has no recipe `{title}`"
    blocks = [Block(language, _unindented(inside)) for language, inside in _BLOCK.findall(found[1])]
    assert blocks, f"the recipe `{title}` has nothing that could be followed"
    return blocks


def _unindented(text: str) -> str:
    lines = text.splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "".join(f"{line[indent:]}\n" for line in lines)
