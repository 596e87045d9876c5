"""Every command that the documentation shows works: those that no test of a page takes are run here.

A page that is read from its beginning to its end is run as a whole; of all others each indented block is run by itself,
in a folder with what they name. What cannot be run here is listed with its reason, and still has to be understood.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer

import cnnsearch
from cnnsearch.cli import app
from cnnsearch.results.parquet import SCHEMAS
from cnnsearch.spec.load import load_sweep
from tests import pages
from tests.asking import ask
from tests.conftest import SMALL
from tests.data.making import fill_folder
from tests.exchange.test_from import WANDB
from tests.pages import ROOT, program
from tests.test_deploy import DOCUMENTS

WHOLE = ("tutorial.md", "from-ray-tune.md", "from-optuna.md", "from-wandb.md", "from-keras-tuner.md")
"""Pages whose commands follow each other."""
NOT_RUN = {
    "cnnsearch sweep part1 --address auto --out /mnt/results": "needs a cluster; tests/cluster starts such ones",
    "cnnsearch sweep part1 --address auto --out s3://bucket/results": "needs a cluster and a bucket; see tests/s3",
    "cnnsearch sweep part1 --data photos --address auto --out s3://bucket/results": "needs a cluster and a bucket",
    "python -m cnnsearch.report s3://bucket/results/part1": "needs a bucket; tests/s3 reports on one",
    "cnnsearch sweep part2": "downloads weights",
    "python tune.py": "needs TensorFlow",
}
"""Command -> why it is only held against the options that there are."""
PROGRAMS_NOT_RUN = {
    "make": "its targets install and take minutes; they have to be there",
    "pip": "needs a network; the extra has to be there",
    ".ci/run": "runs all of this",
    "ray": "needs a cluster; tests/test_deploy.py holds it against Ray's own commands",
    "kubectl": "needs Kubernetes; tests/test_deploy.py looks for its files",
    "docker": "needs Docker; tests/test_deploy.py looks for its file",
    "prometheus": "needs Prometheus",
    "sed": "is for a file of a run's temporary folder",
    "ssh": "needs another machine",
    "export": "is for a shell",
    "wandb": "needs an account and a network",
    "optuna-dashboard": "serves until it is stopped",
}
QUICK = (*SMALL, "train.epochs=1", "run.keep=all")
"""Changes to a sweep that make it small."""
SHORTER = {"--until-clear 1h": "--until-clear 1s", "--set stages.search.search.trials=20 --set train.epochs=20": ""}
"""What takes long at any size -> the same, shorter."""


def take_all() -> None:
    """Have every test of a page say which commands it runs."""
    for file in (ROOT / "tests").rglob("test_*.py"):
        if "pages.take(" in file.read_text(encoding="utf-8") and file != Path(__file__):
            importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))


@dataclass(frozen=True)
class Unit:
    """Commands that are run one after another in one folder."""

    page: str
    lines: tuple[str, ...]

    @property
    def takes_long(self) -> bool:
        """Whether it trains or starts processes."""
        return any(
            (" sweep " in line and "--dry-run" not in line) or " watch " in line or program(line) == "python"
            for line in self.lines
        )


def units() -> Iterator[Unit]:
    """All that is run here, each command once."""
    take_all()
    seen = set(pages.TAKEN)
    for page in sorted(pages.PAGES, key=lambda page: page == "command-line.md"):  # which shows those of others
        blocks = pages.blocks(page)
        for block in [list(chain(*blocks))] if page in WHOLE else blocks:
            lines = [line for line in block if program(line) not in PROGRAMS_NOT_RUN and line not in NOT_RUN]
            if page not in WHOLE:
                lines = [line for line in lines if line not in seen and "-m benchmarks" not in line]
            seen.update(lines)
            if lines:
                yield Unit(page, tuple(lines))


UNITS = list(units())


def named(unit: Unit) -> str:
    return f"{unit.page} {unit.lines[0]}"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages name."""
    place = tmp_path_factory.mktemp("site")
    fill_folder(place / "photos", {"cat": 20, "dog": 20, "owl": 20})
    fill_folder(place / "path" / "to" / "images", {"cat": 20, "dog": 20}, first=100)
    fill_folder(place / "new-photos", {".": 3}, first=200)
    before = Path.cwd()
    os.chdir(place)
    try:
        for name, stage in {"part1": "model: plain", "part2": "model: residual"}.items():
            space = f"stages=[{{name: grid, space: {{{stage}, lr: {{grid: [0.001, 0.01]}}}}}}]"
            changes = [word for change in (*QUICK, space, f"name={name}") for word in ("--set", change)]
            made = ask("part1", *changes, "--data", "photos", "--serial")
            assert made.returncode == 0, made.stderr
    finally:
        os.chdir(before)
    for copy in ("results/rates", "new/part1"):
        shutil.copytree(place / "results" / "part1", place / copy)
    return place


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in which the commands are run."""
    copy = shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(copy)
    return copy


@pytest.mark.usefixtures("figures_left_blank")
@pytest.mark.parametrize("unit", [one for one in UNITS if not one.takes_long], ids=named)
def test_commands(unit: Unit, place: Path) -> None:
    run_all(unit)


@pytest.mark.after
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("figures_left_blank")
@pytest.mark.parametrize("unit", [one for one in UNITS if one.takes_long], ids=named)
def test_commands_that_train(unit: Unit, place: Path) -> None:
    run_all(unit)


def run_all(unit: Unit) -> None:
    """Run the commands of a unit, made small."""
    if unit.page in WHOLE:
        prepare_page(unit.page)
    for line in unit.lines:
        for long, short in SHORTER.items():
            line = line.replace(long, short)
        run(line)


def prepare_page(page: str) -> None:
    """Put the files that a page shows where its commands look for them."""
    for name, content in pages.files(page).items():
        content = re.sub(r"EPOCHS = \d+", "EPOCHS = 4", re.sub(r"num_samples=\d+|n_trials=\d+", shortened, content))
        Path(name).write_text(content, encoding="utf-8")
    if page == "tutorial.md":  # it makes these
        shutil.rmtree("photos", ignore_errors=True)
        shutil.rmtree("new-photos", ignore_errors=True)
    if page == "from-wandb.md":
        Path("wandb_export.csv").write_text(WANDB, encoding="utf-8")
    if page == "from-keras-tuner.md":
        Path("tuning/photos").mkdir(parents=True)
        shutil.copy(ROOT / "tests" / "exchange" / "oracle.json", "tuning/photos")


def shortened(match: re.Match[str]) -> str:
    return match[0].partition("=")[0] + "=2"


def run(line: str) -> None:
    """Run one command: here, or in a process of its own where only that shows it."""
    line, _, goes_to = line.partition(" > ")
    words = shlex.split(line.removeprefix(".venv/bin/"))
    if words[:2] == ["python", "-m"]:  # each command of ours is a module, too
        words = ["cnnsearch", words[2].removeprefix("cnnsearch."), *words[3:]]
    if words[0] == "python":
        ended = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, timeout=250)
        assert ended.returncode == 0, ended.stderr
    elif words[0] == "rm":
        Path(words[1]).unlink()
    elif words[1] == "watch":
        watch(words[2:])
    else:
        printed = run_here(*words[1:])
        if goes_to:
            Path(goes_to).write_text(printed, encoding="utf-8")


def run_here(command: str, *arguments: str) -> str:
    """Run a command of ours in this process and return what it prints."""
    words = list(arguments)
    if command == "sweep":
        words = [*words, "--serial"] if "--dry-run" in words else made_small(words)
    if "567c" in words:
        words[words.index("567c")] = cnnsearch.load(words[0]).trials["trial_id"][0][:6]
    done = ask(*words, command=command)
    allowed = {0, 3} if "--exit-code-when-left" in words else {0}
    assert done.returncode in allowed, f"{command} {words}: {done.stdout[-500:]}{done.stderr}"
    return done.stdout


def made_small(arguments: list[str]) -> list[str]:
    """The arguments of a sweep, with small images and networks where they say nothing else."""
    name, *rest = arguments
    sweep = load_sweep(name)
    searches = [f"stages.{stage.name}.search.trials=3" for stage in sweep.stages if stage.search.method != "grid"]
    confirms = ["confirm.seeds=3"] if sweep.confirm else []
    changes = [*QUICK, *(["train.epochs=4"] if searches else []), *searches, *confirms]
    return [name, *(word for change in changes for word in ("--set", change)), *rest, "--serial"]


def watch(arguments: list[str]) -> None:
    """Serve a page, read it, and end that as a person would."""
    words = [sys.executable, "-m", "cnnsearch", "watch", *arguments, "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            address = next(found[0] for line in served.stdout if (found := re.search(r"http://\S+", line)))
            with urllib.request.urlopen(address, timeout=30) as page:
                assert b"part1" in page.read()
        finally:
            served.send_signal(signal.SIGINT)
        assert served.wait(30) == 0


def test_every_command_has_a_test_or_a_reason() -> None:
    run_here = {line for unit in UNITS for line in unit.lines}
    shown = {line for page in pages.PAGES for block in pages.blocks(page) for line in block}
    left = {line for line in shown - run_here - pages.TAKEN if program(line) not in PROGRAMS_NOT_RUN}
    assert {line for line in left if "-m benchmarks" not in line} == set(NOT_RUN) & shown
    assert set(NOT_RUN) - shown == set(), "these are shown no longer"
    assert {program(line) for line in shown} >= set(PROGRAMS_NOT_RUN), "these are shown no longer"
    assert len(run_here) > 40


def test_commands_of_clusters_are_on_pages_that_are_held_against_their_tools() -> None:
    tools = {"ray", "kubectl", "docker"}
    shown = {page for page in pages.PAGES for block in pages.blocks(page) if tools & set(map(program, block))}
    assert shown == {document.name for document in DOCUMENTS}


@pytest.mark.parametrize("line", [line for line in NOT_RUN if "cnnsearch" in line])
def test_what_is_not_run_is_understood(line: str) -> None:
    understood(line)


def understood(line: str) -> None:
    """Parse a command; a sweep is loaded, too."""
    words = shlex.split(line)
    command, *arguments = words[1:] if words[0] == "cnnsearch" else [words[2].removeprefix("cnnsearch."), *words[3:]]
    parsed = parse(command, arguments)
    if command == "sweep":
        assert load_sweep(parsed["sweep"], profile=parsed["profile"], values=parsed["set_"] or ())


def parse(command: str, arguments: list[str]) -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = group.commands[command].make_context(command, arguments).params
    return found


def test_programs_that_are_not_run_have_what_they_name() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    said = "\n".join(map(pages.text, pages.PAGES))
    targets = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", said, flags=re.MULTILINE))
    assert {target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)} == set()
    assert set(re.findall(r"pip install '?cnnsearch\[(\w+)\]", said)) <= set(extras)
    modules = set(re.findall(r"python -m (benchmarks(?:\.\w+)?)", said))
    assert {name for name in modules if not importlib.util.find_spec(name)} == set()
    assert min(len(targets), len(modules)) > 5


@pytest.mark.parametrize("page", ["from-wandb.md", "from-keras-tuner.md"])
def test_the_converted_sweep_on_a_page_is_what_convert_writes(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_page(page)
    (line,) = [line for block in pages.blocks(page) for line in block if line.startswith("cnnsearch convert")]
    run(line)
    _, made = Path("mine.yaml").read_text(encoding="utf-8").split("\n", 1)  # the first line names the schema's place
    assert f"```yaml\n{made}```" in pages.text(page)


def test_the_tutorial_shows_what_check_says_and_what_init_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = pages.text("tutorial.md")
    exec(pages.files("tutorial.md")["make_photos.py"], {})
    printed = run_here("check", "photos")
    assert "".join(f"    {line}\n" if line else "\n" for line in printed.splitlines()) in page
    run("rm photos/trouser/trouser-070.png")
    run_here("init", "photos")
    written = Path("photos.yaml").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert all(part in written for part in shown.split("...\n"))


def test_commands_stand_in_indented_blocks_alone() -> None:
    """What stands in a fence is not looked at here."""
    for page in pages.PAGES:
        languages = set(re.findall(r"^ *```([\w-]+)", pages.text(page), flags=re.MULTILINE))
        assert languages <= {"python", "yaml", "json", "bibtex", "latex"}, page


def test_the_code_on_the_page_of_tables_runs(place: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", pages.text("tables.md"), flags=re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert set(scope["trials"]["model"]) == {"plain"}


def test_every_column_is_described_in_order() -> None:
    page = pages.text("tables.md")
    for name, schema in SCHEMAS.items():
        table = page.split(f"## `{name}.parquet`")[1].split("\n## ")[0]
        cells = re.findall(r"^\| (`.+?) \|", table, flags=re.MULTILINE)
        assert re.findall(r"`(\w+)`", " ".join(cells)) == schema.names


SPANS = sorted({span for page in pages.PAGES for span in re.findall(r"`cnnsearch ([a-z]+ [^`]+)`", pages.text(page))})


@pytest.mark.parametrize("span", [span for span in SPANS if "[OPTIONS]" not in span])
def test_options_in_sentences_exist(span: str) -> None:
    """A sentence may leave out what a command needs, but not name an option that there is not."""
    command, *words = shlex.split(span)
    group: Any = typer.main.get_command(app)
    known = {name for parameter in group.commands[command].params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
