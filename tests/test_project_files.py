"""The files around the code agree: the version, the declared dependencies, the Dockerfile, the issue forms."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from multimodal import __version__

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"multimodal", "multimodal_encoders"}
DISTRIBUTIONS = packages_distributions()


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


OPTIONAL = set().union(*(names(r) for e, r in PROJECT["optional-dependencies"].items() if e not in ("dev", "docs")))
OPTIONAL -= {"multimodal"}


def sources() -> Iterator[Path]:
    for package in ("multimodal", "encoders"):
        yield from sorted((ROOT / package).rglob("*.py"))


def distributions(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, set[str]]]:
    """Every imported module that is neither ours nor Python's, and the distributions that install it."""
    for node in nodes:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        for module in modules:
            top = module.partition(".")[0]
            if top not in OURS and top not in sys.stdlib_module_names:
                yield module, set(map(canonicalize_name, DISTRIBUTIONS.get(top, [top])))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_version_is_written_once() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert str(read_yaml("CITATION.cff")["version"]) == __version__
    assert re.search(rf"^## {re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)


def test_every_imported_library_is_declared_by_the_package_or_an_extra() -> None:
    declared = names(PROJECT["dependencies"]) | OPTIONAL
    imports = [(path, used) for path in sources() for used in distributions(ast.walk(parsed(path)))]
    assert len(imports) > 100
    assert [f"{path}: {module}" for path, (module, by) in imports if declared.isdisjoint(by)] == []


def test_the_libraries_of_extras_are_imported_only_when_used() -> None:
    """No module imports one at its top level, so every module can be imported without extras.

    The exceptions are made of a library's classes, and no other module imports them at its top level: our server, and those
    that ask Qdrant's and Milvus'.
    """
    engines = ROOT / "multimodal" / "search" / "engines"
    exceptions = [ROOT / "multimodal" / "serve"]
    exceptions += [engines / f"{name}.py" for name in ("qdrant", "qdrant_server", "milvus", "milvus_server")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in exceptions}
    for path in sources():
        if any(path.is_relative_to(exception) for exception in exceptions):
            continue
        imported = [node.module or "" for node in parsed(path).body if isinstance(node, ast.ImportFrom)]
        assert not [name for name in imported if any(f"{name}.".startswith(f"{module}.") for module in modules)], path
        for module, by in distributions(parsed(path).body):
            assert (OPTIONAL - names(PROJECT["dependencies"])).isdisjoint(by), f"{path}: {module}"


def test_the_extra_dev_installs_every_other_extra() -> None:
    (requirement,) = [
        Requirement(line) for line in PROJECT["optional-dependencies"]["dev"] if line.startswith("multimodal[")
    ]
    others = set(PROJECT["optional-dependencies"]) - {"dev"}
    named = set(requirement.extras)
    for extra in requirement.extras:
        for line in PROJECT["optional-dependencies"][extra]:
            named |= Requirement(line).extras if Requirement(line).name == "multimodal" else set()
    assert others - named == {"huggingface-audio", "ray"}  # a combination of two others, and 480 MB


def test_ci_runs_the_python_versions_that_the_package_declares() -> None:
    versions = read_yaml(".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: "
    assert versions == [line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix)]


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_an_issue_form_has_the_fields_that_github_requires(form: str) -> None:
    document = read_yaml(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert document["name"]
    assert document["description"]
    fields = [field for field in document["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    for field in document["body"]:
        assert field["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert field["attributes"]["value" if field["type"] == "markdown" else "label"]
        assert field["type"] != "checkboxes" or all(option["label"] for option in field["attributes"]["options"])


def test_pre_commit_runs_tools_of_the_extra_dev() -> None:
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    programs = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert programs == {"ruff", "lint-imports", "pyright"}
    assert all(hook["language"] == "system" for hook in repository["hooks"])


def test_the_dockerfile_passes_its_linter() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint has no build for this platform")
    result = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_files_that_the_dockerfile_copies_are_in_its_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"multimodal", "encoders", "configs", "Makefile"} <= allowed
    copied = re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    files = {word for line in copied for word in line.split()} - {"."}
    assert files <= allowed
    assert all((ROOT / name).exists() for name in allowed)
