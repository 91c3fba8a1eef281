"""Report how much of the public interface is documented; reads the source only, so it takes about a second.

    python scripts/docstrings.py                       # shares of every folder
    python scripts/docstrings.py multimodal/core       # of one folder or file
    python scripts/docstrings.py --missing PATH ...    # and what is missing, as `path:line name`
    python scripts/docstrings.py --check               # exit code 1 if any share is below 100 %

What counts as public: classes and functions at the top level of a module whose names, and the names of whose modules,
do not begin with an underscore; and the methods of public classes whose names do not, except for

- methods that override a documented method of another class of the project, and hooks that Lightning, torch and
  argparse document (``HOOKS``). ``forward`` is not among the latter: torch cannot know its shapes;
- properties that return an attribute or a simple call, setters and overloads;
- ``multimodal/cli``'s ``run(command, arguments)``, which has the same contract in every command.

Three things are measured:

- docstring: it has one whose first line is a whole sentence of its own (three words or more, an end, and no opening like
  "See ..." or "As ..." that needs another text to be understood).
- Args: a function, method or constructor of three or more arguments has an ``Args:`` section that names every argument.
  For a constructor it is in the docstring of the class. The arguments of a dataclass are its fields; for these and
  named tuples ``Attributes:`` serves as well. Several names may share an entry (``a, b: ...``).
- example: the docstring of a class has an example that ``tests/test_docstring_examples.py`` runs: a line with ``>>>``.
  Not every class needs one: exceptions, protocols (there is nothing to construct), and plain records do without. A
  record is a dataclass, named tuple or enum without public methods which no package exports, such as the result of one
  function, whose example shows it. So do classes of ``multimodal/cli``, a program rather than a library.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("multimodal", "encoders")
PROGRAM = "multimodal/cli"
MANY = 3  # arguments; a function of fewer is understood from its first line

HOOKS = re.compile(
    r"on_\w+|configure_\w+|before_\w+|after_\w+|instantiate_\w+|\w+_(step|dataloader)|setup|teardown|backward|train"
    r"|state_dict|load_state_dict|extra_repr|get_metrics|error|parse_\w+|add_(class_)?arguments\w*|save_config"
)
SENTENCE = re.compile(r"(?=\S+( \S+){2,})[A-Z0-9`\"'(:].*[.?!:]$")
FRAGMENT = re.compile(r"((see|as|of|likewise)\b|the same( of| as|,|:|\.))", re.IGNORECASE)
SECTION = re.compile(r"(Args|Arguments|Attributes):$")
ENTRY = re.compile(r"(\*{0,2}\w+(?:, ?\*{0,2}\w+)*)(?: \([^)]*\))?:")
SIMPLE = (ast.Attribute, ast.Call, ast.Constant, ast.Load, ast.Name, ast.Starred, ast.Subscript)

Function = ast.FunctionDef | ast.AsyncFunctionDef
T = TypeVar("T", bound=ast.stmt)
KINDS = ("docstring", "Args", "example")


@dataclass
class Module:
    """A file with what its names stand for.

    Attributes:
        path: relative to the repository.
        name: as it is imported.
        tree: its source.
        imported: name -> the dotted path that it was imported from.
    """

    path: Path
    name: str
    tree: ast.Module
    imported: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One public name, and for each of the three measures whether it is met; None where it is not asked for."""

    path: Path
    line: int
    name: str
    met: dict[str, bool | None]

    @property
    def folder(self) -> str:
        return self.path.parent.as_posix()


def module_name(path: Path) -> str:
    """The dotted name of a file: its packages are the folders above it that hold an ``__init__.py``."""
    parts = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def read_modules() -> list[Module]:
    """All modules of the two packages."""
    modules = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        module = Module(path.relative_to(ROOT), module_name(path), ast.parse(path.read_text(encoding="utf-8")))
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module.imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        modules.append(module)
    return modules


class Project:
    """The classes of all modules by their dotted paths, and what packages export."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules = {module.name: module for module in modules}
        self.classes = {
            f"{m.name}.{node.name}": (m, node) for m in modules for node in definitions(m.tree.body, ast.ClassDef)
        }
        self.exported = {
            name
            for m in modules
            if m.path.name == "__init__.py"
            for node in ast.walk(m.tree)
            if isinstance(node, ast.ImportFrom)
            for name in (alias.asname or alias.name for alias in node.names)
        }

    def bases(self, module: Module, cls: ast.ClassDef) -> Iterator[tuple[Module, ast.ClassDef]]:
        """The classes of the project that a class inherits from, nearest first."""
        for base in cls.bases:
            found = self._find(module, dotted(base))
            if found is not None:
                yield found
                yield from self.bases(*found)

    def base_names(self, module: Module, cls: ast.ClassDef) -> set[str]:
        """The last parts of the names of all its bases, of other libraries too."""
        names = {dotted(base).rpartition(".")[2] for base in cls.bases}
        return names.union(*({dotted(b).rpartition(".")[2] for b in c.bases} for _, c in self.bases(module, cls)))

    def _find(self, module: Module, name: str) -> tuple[Module, ast.ClassDef] | None:
        first, dot, rest = name.partition(".")
        path = module.imported.get(first, f"{module.name}.{first}") + dot + rest
        for _ in range(3):  # a name that a package exports leads to the module that defines it
            if path in self.classes:
                return self.classes[path]
            package, _, last = path.rpartition(".")
            exporting = self.modules.get(package)
            if exporting is None or last not in exporting.imported:
                return None
            path = exporting.imported[last]
        return None


def definitions(body: Sequence[ast.stmt], kind: type[T] | tuple[type[T], ...]) -> Iterator[T]:
    """Definitions at this level, also under ``if`` and ``try``."""
    for node in body:
        if isinstance(node, kind):
            yield node
        elif isinstance(node, ast.If | ast.Try):
            yield from definitions([*node.body, *node.orelse], kind)


def dotted(node: ast.expr) -> str:
    """``a.b.C`` of an expression, without its parameters; empty for other expressions."""
    if isinstance(node, ast.Subscript | ast.Call):
        return dotted(node.value if isinstance(node, ast.Subscript) else node.func)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def decorators(node: Function | ast.ClassDef) -> set[str]:
    """The last parts of the names of its decorators."""
    return {dotted(decorator).rpartition(".")[2] for decorator in node.decorator_list}


def docstring(node: Function | ast.ClassDef) -> str:
    """The docstring without its indentation; empty where there is none."""
    return inspect.cleandoc(ast.get_docstring(node) or "")


def says_what_it_does(text: str) -> bool:
    """Whether the first line of a docstring is a sentence that stands alone."""
    first = text.partition("\n")[0]
    return bool(SENTENCE.match(first)) and not FRAGMENT.match(first)


def documented_names(text: str, sections: Sequence[str]) -> set[str]:
    """The names that entries of some sections of a docstring describe."""
    names: set[str] = set()
    inside, indent = False, 0
    for line in text.splitlines():
        width = len(line) - len(line.lstrip())
        if line.strip() and not width:
            heading = SECTION.match(line)
            inside, indent = heading is not None and heading[1] in sections, 0
        elif inside and line.strip():
            indent = indent or width
            if width == indent and (entry := ENTRY.match(line.strip())):
                names |= {name.strip(" *") for name in entry[1].split(",")}
    return names


def arguments(function: Function, *, method: bool) -> list[str]:
    """The names of a function's arguments, without ``self`` and those that begin with an underscore."""
    found = function.args
    names = [a.arg for a in (*found.posonlyargs, *found.args)]
    if method and "staticmethod" not in decorators(function):
        names = names[1:]
    names += [a.arg for a in (found.vararg, *found.kwonlyargs, found.kwarg) if a is not None]
    return [name for name in names if not name.startswith("_")]


def fields(cls: ast.ClassDef) -> list[str]:
    """The fields of a dataclass or named tuple that its constructor takes."""
    return [
        node.target.id
        for node in cls.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and not node.target.id.startswith("_")
        and "ClassVar" not in ast.unparse(node.annotation)
        and "init=False" not in (ast.unparse(node.value) if node.value else "")
    ]


def is_simple_property(node: Function) -> bool:
    """Whether a property returns an attribute or a call of names alone."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    if not decorators(node) & {"property", "cached_property"} or len(body) != 1 or not isinstance(body[0], ast.Return):
        return False
    return body[0].value is not None and all(isinstance(part, SIMPLE) for part in ast.walk(body[0].value))


def methods(project: Project, module: Module, cls: ast.ClassDef) -> Iterator[Function]:
    """The public methods of a class that document themselves."""
    bases = list(project.bases(module, cls))
    inherits = len(bases) > 0 or project.base_names(module, cls) - {"ABC", "Protocol", "Generic", "NamedTuple"}
    for node in definitions(cls.body, (ast.FunctionDef, ast.AsyncFunctionDef)):
        if (
            node.name.startswith("_")
            or decorators(node) & {"overload", "setter", "override"}
            or is_simple_property(node)
        ):
            continue
        if inherits and HOOKS.fullmatch(node.name):
            continue
        named = [m for _, base in bases for m in definitions(base.body, ast.FunctionDef) if m.name == node.name]
        if not any(ast.get_docstring(method) for method in named):
            yield node


def constructor_met(cls: ast.ClassDef, is_record: bool) -> bool | None:
    """Whether the docstring of a class names all arguments of its constructor; None where these are few."""
    init = next((n for n in definitions(cls.body, ast.FunctionDef) if n.name == "__init__"), None)
    names = arguments(init, method=True) if init is not None else fields(cls) if is_record else []
    if len(names) < MANY:
        return None
    sections = ("Args", "Arguments", "Attributes") if is_record else ("Args", "Arguments")
    text = docstring(cls) + "\n\n" + (docstring(init) if init is not None else "")
    return set(names) <= documented_names(text, sections)


def has_example(text: str) -> bool:
    """Whether a docstring has an example that is run."""
    lines = [line for line in text.splitlines() if line.strip().startswith(">>>")]
    return any("doctest: +SKIP" not in line for line in lines)


def class_item(project: Project, module: Module, cls: ast.ClassDef) -> Item:
    """What is asked of a public class, and whether it is met."""
    text, inherited = docstring(cls), project.base_names(module, cls)
    is_record = "dataclass" in decorators(cls) or bool(inherited & {"NamedTuple", "TypedDict", "Enum", "StrEnum"})
    plain = is_record and cls.name not in project.exported and next(methods(project, module, cls), None) is None
    is_error = any(name.endswith(("Error", "Exception", "Warning")) for name in inherited)
    needs_example = not (plain or is_error or "Protocol" in inherited or module.path.as_posix().startswith(PROGRAM))
    met = {
        "docstring": says_what_it_does(text),
        "Args": constructor_met(cls, is_record),
        "example": has_example(text) if needs_example else None,
    }
    return Item(module.path, cls.lineno, cls.name, met)


def function_item(module: Module, function: Function, owner: str = "") -> Item:
    """What is asked of a public function or method, and whether it is met."""
    text, names = docstring(function), arguments(function, method=bool(owner))
    args = set(names) <= documented_names(text, ("Args", "Arguments")) if len(names) >= MANY else None
    met = {"docstring": says_what_it_does(text), "Args": args, "example": None}
    return Item(module.path, function.lineno, f"{owner}{function.name}", met)


def public_items(project: Project) -> Iterator[Item]:
    """Every public class, function and method."""
    for module in project.modules.values():
        if any(part.startswith("_") for part in module.name.split(".")):
            continue
        for function in definitions(module.tree.body, (ast.FunctionDef, ast.AsyncFunctionDef)):
            command = function.name == "run" and module.path.as_posix().startswith(PROGRAM)
            if not (function.name.startswith("_") or command or "overload" in decorators(function)):
                yield function_item(module, function)
        for cls in definitions(module.tree.body, ast.ClassDef):
            if not cls.name.startswith("_"):
                yield class_item(project, module, cls)
                for method in methods(project, module, cls):
                    yield function_item(module, method, f"{cls.name}.")


def share(items: Sequence[Item], kind: str) -> str:
    """``95.0 %  190/200``, or a dash where nothing is asked for."""
    asked = [item for item in items if item.met[kind] is not None]
    met = sum(item.met[kind] is True for item in asked)
    return f"{100 * met / len(asked):5.1f} %  {met:>3}/{len(asked):<3}" if asked else "-"


def main() -> int:
    """Print the report; returns the exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="folders or files to report on (default: both packages)")
    parser.add_argument("--missing", action="store_true", help="list what is missing, grouped by folder")
    parser.add_argument("--check", action="store_true", help="exit with 1 if any share is below 100 %%")
    options = parser.parse_args()
    chosen = [Path(path).resolve() for path in options.paths] or [ROOT / folder for folder in FOLDERS]
    items = [
        item
        for item in public_items(Project(read_modules()))
        if any((ROOT / item.path).is_relative_to(path) for path in chosen)
    ]
    if not items:
        parser.error(f"nothing public in {', '.join(map(str, chosen))}")
    folders: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        folders[item.folder].append(item)
    width = max(len("folder"), *map(len, folders))
    print(f"{'folder':{width}}  {'docstring':18} {'Args (3+)':18} {'example (classes)':18}")
    for folder, found in [*sorted(folders.items()), ("all", items)]:
        print(f"{folder:{width}}  " + " ".join(f"{share(found, kind):18}" for kind in KINDS))
    if options.missing:
        for folder, found in sorted(folders.items()):
            for kind in KINDS:
                missing = [item for item in found if item.met[kind] is False]
                if missing:
                    print(f"\n{folder}: {kind} missing ({len(missing)})")
                    print("\n".join(f"{item.path}:{item.line} {item.name}" for item in missing))
    return int(options.check and any(False in item.met.values() for item in items))


if __name__ == "__main__":
    raise SystemExit(main())
