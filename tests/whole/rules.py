"""Rules on the form of the program's source, and on its place in the manual.

``python -m tests.whole.rules [ROOM]`` prints what breaks them, one line each; `test_rules` holds
the whole of ``mta/`` to them.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT

MAX_FILE_LINES = 450
MAX_CLASS_LINES = 250
MAX_BODY_LINES = 35  # of a function, without its signature and docstring
MAX_METHODS = 5  # of an interface, without those that it inherits
MAX_SUMMARY_WORDS = 12  # of the first sentence of a docstring

CLAUSE = re.compile(
    r"(?:What|Whether|How|Who|Where|When|Why|If|Which|Whose|Whom|Whatever|Whoever)\b"
)
PEOPLE = re.compile(
    r"\b(?:nobody|somebody|whoever|whom|anybody|everybody|those who)\b", re.IGNORECASE
)
SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)[.!?](?=\s|$)")
OLD_PREFIX = re.compile(r"_?(?:MOST|LEAST|LONGEST|SHORTEST|USUAL)_")

# Functions that a class may be given, each with its reason; clocks and chance are plain by type.
PLAIN_TYPES = {"Callable[[], float]"}
PLAIN_FUNCTIONS = {
    "in_thread": "how functions run in threads, which the reactor decides",
    "in_steps": "how long work is cut, which the reactor decides",
    "shuffle": "chance",
    "is_on_interface": "a look at the system, as a clock is",
    "token": "chance",
    "answer": "a row of a table of functions: the verbs",
    "out_of_phase": "a row of a table of functions: the verbs",
    "look": "a row of a table of functions: the checks of mta doctor",
    "paint": "colours of the terminal, text to text",
    "action": "a piece of work, handed on to a thread or a timer",
}
# Words of docstrings that mean a person, or a name of the system: file and word.
MEANT: set[tuple[str, str]] = set()
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, order=True)
class Violation:
    """One place that breaks a rule."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"

    @property
    def room(self) -> str:
        """The room of ``mta/`` that the place is in."""
        return Path(self.path).parts[1].removesuffix(".py")


@dataclass(frozen=True)
class Source:
    """A source file, parsed."""

    path: str
    text: str
    tree: ast.Module

    def at(self, node: ast.AST, rule: str, text: str) -> Violation:
        """A violation where the node stands."""
        return Violation(self.path, getattr(node, "lineno", 1), rule, text)

    def classes(self) -> Iterator[ast.ClassDef]:
        """All classes of the file."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))


def sources(folder: Path = ROOT / "mta") -> list[Source]:
    """All source files below the folder."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text("utf-8")
        found.append(Source(str(path.relative_to(folder.parent)), text, ast.parse(text)))
    return found


def sizes(source: Source) -> Iterator[Violation]:
    """Files, classes and functions that are too long."""
    if (lines := len(source.text.splitlines())) > MAX_FILE_LINES:
        yield source.at(source.tree, "file", f"{lines} lines, {MAX_FILE_LINES} allowed")
    for node in source.classes():
        assert node.end_lineno is not None
        if (lines := node.end_lineno - node.lineno + 1) > MAX_CLASS_LINES:
            yield source.at(node, "class", f"{node.name}: {lines} lines, {MAX_CLASS_LINES} allowed")
    for function in (node for node in ast.walk(source.tree) if isinstance(node, FUNCTION)):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        if body and (lines := function.end_lineno - body[0].lineno + 1) > MAX_BODY_LINES:
            text = f"{function.name}: {lines} lines, {MAX_BODY_LINES} allowed"
            yield source.at(function, "function", text)


def interfaces(source: Source) -> Iterator[Violation]:
    """Interfaces with too many methods, and interfaces of another kind than zope's."""
    for node in source.classes():
        bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        methods = _methods(node)
        if any(re.fullmatch(r"Interface|I[A-Z]\w+[a-z]\w*", base) for base in bases):
            if len(methods) > MAX_METHODS:
                yield source.at(
                    node, "interface", f"{node.name}: {len(methods)} methods, {MAX_METHODS} allowed"
                )
        elif "Protocol" in bases and _imports_typing_protocol(source) and methods != ["__call__"]:
            yield source.at(node, "interface", f"{node.name}: a typing.Protocol; take zope's")


def _methods(node: ast.ClassDef) -> list[str]:
    return [each.name for each in node.body if isinstance(each, FUNCTION)]


def _imports_typing_protocol(source: Source) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "typing"
        and any(alias.name == "Protocol" and not alias.asname for alias in node.names)
        for node in source.tree.body
    )


def seams(source: Source, aliases: set[str]) -> Iterator[Violation]:
    """Bare callables where an interface, or a value returned, is meant."""
    for owner in source.classes():
        if any(ast.unparse(base).endswith("Interface") for base in owner.bases):
            continue
        for name, annotation, node in _handed_in(owner):
            if _is_callable(annotation, aliases) and name.strip("_") not in PLAIN_FUNCTIONS:
                yield source.at(node, "callable", f"{owner.name} is given {name}, a bare callable")
        for each in ast.walk(owner):
            for default in _lambdas(each):
                yield source.at(default, "lambda", f"{owner.name}: a default or an attribute")
            if _is_event(each, aliases):
                yield source.at(each, "callable", f"{owner.name}: an on_... attribute")


def _lambdas(node: ast.AST) -> list[ast.Lambda]:
    values: list[ast.expr | None] = []
    if isinstance(node, ast.arguments):
        values = [*node.defaults, *node.kw_defaults]
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        values = [node.value]
    return [value for value in values if isinstance(value, ast.Lambda)]


def _handed_in(owner: ast.ClassDef) -> Iterator[tuple[str, ast.expr | None, ast.AST]]:
    """The parameters of the constructor, or the fields of a dataclass."""
    for node in owner.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            for argument in (*node.args.args, *node.args.kwonlyargs):
                yield argument.arg, argument.annotation, argument
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.annotation, node


def _is_callable(annotation: ast.expr | None, aliases: set[str]) -> bool:
    if annotation is None:
        return False
    text = ast.unparse(annotation).removesuffix(" | None").strip("'\"")
    return text not in PLAIN_TYPES and (text.startswith("Callable[") or text in aliases)


def _is_event(node: ast.AST, aliases: set[str]) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name.startswith("on_") and _is_callable(node.returns, aliases)
    return (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Attribute)
        and node.target.attr.startswith("on_")
        and _is_callable(node.annotation, aliases)
    )


def callable_aliases(all_sources: list[Source]) -> set[str]:
    """Names of the program that stand for callables."""
    found = set()
    for source in all_sources:
        for node in source.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                if ast.unparse(node.value).startswith("Callable["):
                    found.add(node.targets[0].id)
            elif isinstance(node, ast.ClassDef) and _methods(node) == ["__call__"]:
                found.add(node.name)
    return found


def docstrings(source: Source) -> Iterator[Violation]:
    """Docstrings that begin with a clause, say too much at once, or speak of people."""
    for node in ast.walk(source.tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, *FUNCTION)):
            continue
        text = ast.get_docstring(node)
        if not text:
            continue
        place = node.body[0]
        first = first_sentence(text)
        if CLAUSE.match(first):
            yield source.at(place, "clause", first)
        if len(first.split()) > MAX_SUMMARY_WORDS:
            yield source.at(place, "summary", f"{len(first.split())} words: {first}")
        for match in PEOPLE.finditer(re.sub(r"`[^`]*`", "``", text)):
            if (source.path, match[0].lower()) not in MEANT:
                yield source.at(place, "people", f"{match[0]!r} in: {_around(match)}")


def undocumented(source: Source) -> Iterator[Violation]:
    """Modules, and public classes and functions, without a docstring."""
    waiting: list[ast.Module | ast.ClassDef] = [source.tree]
    while waiting:
        owner = waiting.pop()
        for node in (owner, *owner.body):
            is_public = not getattr(node, "name", "").startswith("_")
            if any("setter" in ast.unparse(each) for each in getattr(node, "decorator_list", ())):
                continue  # the property says it
            if not (isinstance(node, (ast.Module, ast.ClassDef, *FUNCTION)) and is_public):
                continue
            if not ast.get_docstring(node):
                yield source.at(node, "undocumented", getattr(node, "name", "the module"))
            if isinstance(node, ast.ClassDef) and node is not owner:
                waiting.append(node)


def first_sentence(text: str) -> str:
    """The first sentence of a docstring."""
    paragraph = " ".join(text.split("\n\n", 1)[0].split())
    match = SENTENCE_END.search(paragraph)
    return paragraph[: match.start()] if match else paragraph


def comments(source: Source) -> Iterator[Violation]:
    """Comments that speak of people."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and PEOPLE.search(re.sub(r"`[^`]*`", "``", token.string)):
            yield Violation(source.path, token.start[0], "people", token.string)


def _around(match: re.Match[str]) -> str:
    return " ".join(match.string[max(0, match.start() - 40) : match.end() + 40].split())


def constants(source: Source) -> Iterator[Violation]:
    """Names of constants with another word than MAX, MIN or DEFAULT."""
    for node in ast.walk(source.tree):
        is_stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        if is_stored and OLD_PREFIX.match(node.id):
            yield source.at(node, "constant", f"{node.id}: MAX_, MIN_ or DEFAULT_")


def places(source: Source, page: str) -> Iterator[Violation]:
    """Modules that the page on the design does not name in the entry of their room."""
    room, *inner = Path(source.path).with_suffix("").parts[1:]
    if inner[-1:] == ["__init__"]:
        inner.pop()
    entry = _entry(page, room)
    if room != "__init__" and not all(f"``{name}``" in entry for name in (room, *inner[-1:])):
        yield source.at(source.tree, "design", f"docs/design.rst: not in the entry of {room}")


def _entry(page: str, room: str) -> str:
    """The entry of a room: its head, which may name others too, and what is indented below."""
    rooms = page.partition("\nThe rooms\n")[2].partition("\nWho may import whom\n")[0]
    for match in re.finditer(r"^(``.*)\n((?:    .*\n|\n)+)", rooms, re.MULTILINE):
        if f"``{room}``" in match[1]:
            return match[0]
    return ""


def violations(folder: Path = ROOT / "mta") -> list[Violation]:
    """All violations below the folder, in order."""
    every = sources(folder)
    aliases = callable_aliases(every)
    page = (folder.parent / "docs/design.rst").read_text("utf-8")
    found: set[Violation] = set()
    for source in every:
        for rule in (sizes, interfaces, undocumented, docstrings, comments, constants):
            found.update(rule(source))
        found.update(seams(source, aliases))
        found.update(places(source, page))
    return sorted(found)


def main() -> int:
    """Print the violations of some rooms, or of all; returns the exit status."""
    rooms = set(sys.argv[1:])
    found = [each for each in violations(Path("mta").resolve()) if each.room in rooms or not rooms]
    for each in found:
        print(each)
    print(f"{len(found)} violations", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
