"""What the documents say is true: generated pages are current, links and modules exist, the notebook cell runs."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests import pages
from tests.conftest import SMALL

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def make_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_current() -> None:
    module = make_reference()
    for name, made in module.PAGES.items():
        page = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert made() == page, "run python docs/make_reference.py"


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in pages.PAGES:
        folder = (ROOT / page if page in pages.OUTSIDE else ROOT / "docs" / page).parent
        for path, heading in re.findall(r"\]\((?!https?://)([^)#]*)(#[^)]+)?\)", pages.text(page)):
            target = folder / (path or Path(page).name)
            assert target.exists(), f"{page}: {path}"
            assert not heading or heading[1:] in headings(target), f"{page}: {path}{heading}"


def headings(document: Path) -> set[str]:
    """What links to the headings of a page are called on code hosts, and on the site."""
    found = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.usefixtures("reports_in_words", "shared_ray")
@pytest.mark.after
def test_the_notebook_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cell,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    small = dict(value.split("=", 1) for value in SMALL)
    changes = {
        "train.epochs": 1,
        "train.width": 0.05,
        "data.image_size": 8,
        "data.split": {"method": "fill", "train_per_class": 6, "val_per_class": 4},
    }
    assert changes.keys() <= small.keys()
    assert '{"train.epochs": 3}' in cell
    lines = cell.replace('{"train.epochs": 3}', repr(changes)).strip().splitlines()
    shown = [line for line in lines if line.startswith(("tables.trials", "cnnsearch.plots"))]
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec("\n".join(line for line in lines if line not in shown), scope)
    frame, figure = (eval(line, scope) for line in shown)
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == 16
    assert frame["test_accuracy"].between(0, 1).all()
    assert isinstance(figure, Figure)
    assert (tmp_path / "results" / "part1" / "report.html").is_file()


PACKAGE = ROOT / "cnnsearch"
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
NAMING = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "design.md"]
"""Documents that name modules: `planning/plan` is cnnsearch/planning/plan.py, `planning/plan.Plan` a name in it."""
NOT_OURS = {"train/", "val/", "test/", "results/part1/"}
"""Folders of a user in these documents."""


def is_there(name: str) -> bool:
    """Whether a path is a file or folder of the repository, a module or package, or a name in a module."""
    module, _, attribute = name.partition(".")
    if any((root / name).exists() for root in (ROOT, PACKAGE)):
        return True
    files = [root / f"{module}.py" for root in (ROOT, PACKAGE) if (root / f"{module}.py").is_file()]
    return bool(files) and (not attribute or attribute in names_in(files[0]))


def names_in(file: Path) -> set[str]:
    """What a module defines."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def named(text: str) -> set[str]:
    """Every path that a document names in backticks, and every module in the first column of a table of modules."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = set(re.findall(r"`([^`\n]+)`", text))
    paths = {span for span in spans if re.fullmatch(r"[\w.]+(/[\w.-]+)*/?", span) and "/" in span}
    run = {name for span in spans for name in re.findall(r"-m ((?:cnnsearch|benchmarks)\S*)", span)}
    tables = re.findall(r"^\| module \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    return (
        paths - NOT_OURS
        | {name.replace(".", "/") for name in run}
        | {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    )


@pytest.mark.parametrize("document", NAMING, ids=lambda path: path.name)
def test_modules_that_are_named_exist(document: Path) -> None:
    found = named(document.read_text(encoding="utf-8"))
    assert len(found) > 5
    assert sorted(name for name in found if not is_there(name)) == []


def test_a_module_that_does_not_exist_would_be_noticed() -> None:
    table = "| module | its job |\n|---|---|\n| `preparing` | – |\n"
    text = f"{table}\n`planing/plan`, `planning/plans`, `planning/plan.Plans`"
    assert not any(is_there(name) for name in named(text))
    assert named(text) == {"preparing", "planing/plan", "planning/plans", "planning/plan.Plans"}


def test_every_package_and_root_module_is_described_in_the_order_of_the_layers() -> None:
    packages = {f"{file.parent.relative_to(PACKAGE)}/" for file in PACKAGE.rglob("__init__.py")} - {"./"}
    assert {package for package in packages if f"`{package}`" not in DESIGN} == set()
    modules = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules - named(DESIGN) == set()
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["cnnsearch"]]
    level = {name: -number for number, layer in enumerate(layers) for name in re.findall(r"\w+", layer)}
    described = re.findall(r"^### `(\w+)/`$", DESIGN, flags=re.MULTILINE)
    assert sorted(described, key=level.__getitem__) == described
    assert {f"{name}/" for name in described} == {package for package in packages if package.count("/") == 1}
