"""The limits of the style guide: docstrings, types, sizes, names, import cycles, and code that stands twice."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "synthpipe"

MODULES_IN_A_FOLDER = 20
LINES_OF_A_MODULE = 430
LINES_OF_A_FUNCTION = 65
DOCSTRINGS = 0.95
#: Lines that may not stand in two places, one after the other.
EQUAL_LINES = 6
#: One small schema for each component, listed in one folder: the exception to the folder's limit.
FOLDERS_WITHOUT_LIMIT = {"config"}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "misc", "common"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def modules(root: Path) -> dict[str, Path]:
    """Every module below ``root``, the package itself, by its dotted name."""
    names = {path: ".".join(path.relative_to(root.parent).with_suffix("").parts) for path in sorted(root.rglob("*.py"))}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def definitions(path: Path) -> Iterator[Definition]:
    """Functions, methods and classes, nested ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Definition):
            yield node


def functions(path: Path) -> Iterator[Function]:
    for node in definitions(path):
        if not isinstance(node, ast.ClassDef):
            yield node


def untyped(function: Function) -> list[str]:
    """Arguments without a type, and ``return`` where that has none."""
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    found = [a.arg for a in arguments if a is not None and a.annotation is None and a.arg not in ("self", "cls")]
    return found + (["return"] if function.returns is None else [])


def imports(root: Path) -> dict[str, set[str]]:
    """The modules below ``root`` that each module imports, also inside functions and for types alone."""
    known = modules(root)
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & set(known)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= (full | ({node.module} if not full <= set(known) else set())) & set(known)
    return found


def import_cycles(graph: dict[str, set[str]]) -> set[str]:
    """Modules that reach themselves."""
    found = set()
    for start in graph:
        reached: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting += graph[name]
        if start in reached:
            found.add(start)
    return found


def lines_to_compare(path: Path, *, docstrings: bool) -> list[tuple[int, str]]:
    """(number, text) of each line without its indentation.  Left out: empty lines, comments, imports, which two modules
    with the same needs share, and docstrings unless asked for."""
    text = path.read_text()
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Definition | ast.Module) and ast.get_docstring(node) is not None and not docstrings:
            left_out |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if number not in left_out)
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def repeated(root: Path, length: int) -> list[str]:
    """Places where the same ``length`` lines begin, once with docstrings between them and once without."""
    found = []
    for docstrings in (False, True):
        places: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        for path in sorted(root.rglob("*.py")):
            lines = lines_to_compare(path, docstrings=docstrings)
            for begin in range(len(lines) - length + 1):
                block = tuple(line for _, line in lines[begin : begin + length])
                places[block].append(f"{path.relative_to(root)}:{lines[begin][0]}")
        found += [" = ".join(where) for where in places.values() if len(where) > 1]
    return sorted(set(found))


def test_public_names_have_docstrings() -> None:
    public = {
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}": ast.get_docstring(node) is not None
        for path in modules(PACKAGE).values()
        for node in definitions(path)
        if not node.name.startswith("_")
    }
    share = sum(public.values()) / len(public)
    assert share >= DOCSTRINGS, f"{share:.1%}; without: {[name for name, has in public.items() if not has]}"


def test_signatures_are_typed() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{function.lineno} {function.name}": names
        for path in modules(PACKAGE).values()
        for function in functions(path)
        if (names := untyped(function))
    }
    assert found == {}


def test_folders_are_small() -> None:
    counts = Counter(path.parent for path in PACKAGE.rglob("*.py") if path.parent.name not in FOLDERS_WITHOUT_LIMIT)
    assert {str(folder): n for folder, n in counts.items() if n > MODULES_IN_A_FOLDER} == {}


def test_modules_are_short() -> None:
    counts = {name: len(path.read_text().splitlines()) for name, path in modules(PACKAGE).items()}
    assert {name: n for name, n in counts.items() if n > LINES_OF_A_MODULE} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{name}.{function.name}": (function.end_lineno or 0) - function.lineno + 1
        for name, path in modules(PACKAGE).items()
        for function in functions(path)
    }
    assert {name: n for name, n in lengths.items() if n > LINES_OF_A_FUNCTION} == {}


def test_names_of_modules_say_something() -> None:
    parts = {part for name in modules(PACKAGE) for part in name.split(".")}
    assert parts & NAMES_THAT_SAY_NOTHING == set()


def test_messages_count_in_words() -> None:
    """As :func:`synthpipe.errors.counted` does; no ``image(s)``."""
    texts = {
        f"{path.name}:{node.lineno}": node.value
        for path in PACKAGE.rglob("*.py")
        for whole in ast.walk(ast.parse(path.read_text()))
        for node in (whole.values if isinstance(whole, ast.JoinedStr) else ())
        if isinstance(node, ast.Constant)
    }
    assert [place for place, text in texts.items() if re.search(r" [a-z]+\(e?s\)", text)] == []


def test_no_import_cycle() -> None:
    assert import_cycles(imports(PACKAGE)) == set()


def test_nothing_stands_twice() -> None:
    assert repeated(PACKAGE, EQUAL_LINES) == []


def test_the_measures_find_what_they_look_for(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "rooms").mkdir(parents=True)
    body = "\n".join(f"    value_{i} = argument + {i}" for i in range(5)) + "\n    return value_0"
    (package / "__init__.py").write_text("")
    (package / "rooms/__init__.py").write_text("")
    (package / "first.py").write_text(
        f'from package.rooms import second\n\ndef one(argument: int) -> int:\n    """One."""\n{body}\n'
    )
    (package / "rooms/second.py").write_text(
        "import os\n\ndef two(argument):\n    from package.rooms.third import three\n\n"
        f"    # another comment\n{body}\n\nclass Three:\n    async def get(self, *many, key: int = 0) -> int: ...\n"
    )
    (package / "rooms/third.py").write_text("from package.first import one\n\ndef three() -> None: ...\n")

    assert import_cycles(imports(package)) == {"package.first", "package.rooms.second", "package.rooms.third"}
    assert repeated(package, 6) == ["first.py:5 = rooms/second.py:7"]
    assert repeated(package, 7) == []
    second = package / "rooms/second.py"
    assert [untyped(function) for function in functions(second)] == [["argument", "return"], ["many"]]
    assert [node.name for node in definitions(second)] == ["two", "Three", "get"]
