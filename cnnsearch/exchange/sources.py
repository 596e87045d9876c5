"""Where trials of other tools come from: how `--from` names them."""

from __future__ import annotations

from collections.abc import Mapping

from cnnsearch.errors import RequestError
from cnnsearch.exchange import from_ray, from_table
from cnnsearch.exchange.foreign import Foreign, Raw
from cnnsearch.exchange.mapping import mapped
from cnnsearch.storage.paths import typed_path
from cnnsearch.words import listed, printable

TOOLS = ("optuna", "ray", "wandb", "csv", "parquet", "mlflow")
ALLOWED = (
    "optuna:sqlite:///study.db, optuna:journal.log, mlflow:sqlite:///mlflow.db, mlflow:mlruns, a folder of Ray Tune's "
    "results, and a table that ends in .csv, .tsv or .parquet, such as an export of W&B"
)


def foreign_trials(source: str, given: Mapping[str, str]) -> Foreign:
    """Read the trials that `--from` names, with `--map` as `mapping.parse_map` gives it. Raises RequestError."""
    return mapped(_read(source, given), given)


def _read(source: str, given: Mapping[str, str]) -> Raw:
    tool, colon, place = source.partition(":")
    shown = printable(source)
    if not colon or tool not in TOOLS:
        tool, place = "", source
    if colon and tool and not place:
        raise RequestError(f"--from {shown}: allowed are {ALLOWED}")
    if "study" in given and tool != "optuna":
        raise RequestError("--map study=NAME is for Optuna's stores")
    if tool == "optuna":
        from cnnsearch.exchange.from_optuna import read

        return read(place, shown, given.get("study"))
    if tool == "mlflow":
        from cnnsearch.exchange.from_mlflow import read as read_runs

        return read_runs(place, shown)
    path = typed_path(place)
    if not path.exists():
        raise RequestError(f"--from {shown}: there is no such file or folder; allowed are {ALLOWED}")
    if tool == "ray" or (path.is_dir() and from_ray.is_one(path)):
        if not path.is_dir():
            raise RequestError(f"--from {shown}: give the folder of an experiment")
        return from_ray.read(path, shown)
    if path.is_dir():
        raise RequestError(f"--from {shown} is a folder without results of Ray Tune; allowed are {ALLOWED}")
    if path.suffix.lower() not in from_table.ENDINGS:
        raise RequestError(
            f"--from {shown}: a table ends in {listed(list(from_table.ENDINGS), 'or')}; of another tool say which, as "
            f"in optuna:{printable(place)}; allowed are {ALLOWED}"
        )
    return from_table.read(path, shown)
