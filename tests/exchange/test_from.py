"""`cnnsearch report --from`: stores that the tools themselves wrote are read, and never changed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from cnnsearch.errors import RequestError
from cnnsearch.exchange.foreign import Foreign, State
from cnnsearch.exchange.sources import foreign_trials
from tests.asking import ask
from tests.exchange.made import table
from tests.test_telling import valid

pytestmark = pytest.mark.usefixtures("figures_left_blank")


def reported(source: object, out: Path, *more: str) -> dict[str, Any]:
    answer = ask("--from", source, "--out", out, "--json", *more, command="report")
    assert answer.returncode == 0, answer.stderr
    found = valid(answer)
    assert found["kind"] == "foreign_report"
    assert (out / "report.html").is_file()
    return found


def digest_of(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def run_studies(storage: Any, names: tuple[str, ...] = ("one",)) -> None:
    """Fill studies as their users do: by Optuna's own loop, with trials that are pruned and one that fails."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space: dict[str, Any] = {"lr": [0.001, 0.01], "units": [8, 16, 32], "act": ["relu", "gelu"], "seed": [0]}

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_categorical("lr", [0.001, 0.01])
        units = trial.suggest_int("units", 8, 32)
        act = trial.suggest_categorical("act", ["relu", "gelu"])
        seed = trial.suggest_categorical("seed", [0])
        trial.set_user_attr("machine", "box")
        trial.report(0.5, 1)
        if trial.number == 3:
            raise optuna.TrialPruned
        if trial.number == 5:
            raise RuntimeError
        return 0.7 + 0.1 * (act == "gelu") + 0.001 * seed + 0.0001 * units + lr

    for name in names:
        sampler = optuna.samplers.GridSampler(space, seed=0)
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", sampler=sampler)
        study.optimize(objective, n_trials=12, catch=RuntimeError)


def check_of_optuna(found: Foreign) -> None:
    assert found.raw.tool == "Optuna"
    assert (found.roles.score, found.roles.seed, found.roles.is_larger_better) == ("value", "seed", True)
    assert set(found.roles.axes) == {"lr", "units", "act"}
    states = [trial.state for trial in found.trials]
    assert (states.count(State.DONE), states.count(State.PRUNED), states.count(State.FAILED)) == (10, 1, 1)
    one = next(trial for trial in found.trials if trial.state is State.DONE)
    act, lr, units, seed = (one.values["act"], one.values["lr"], one.values["units"], one.seed)
    wanted = 0.7 + 0.1 * (act == "gelu") + 0.001 * float(str(seed)) + 0.0001 * float(str(units)) + float(str(lr))
    assert one.judged_by == pytest.approx(wanted)


def test_a_database_of_optuna_is_read_and_not_changed(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    run_studies(f"sqlite:///{folder}/study.db")
    before = digest_of(folder)
    (folder / "study.db").chmod(0o444)
    check_of_optuna(foreign_trials(f"optuna:sqlite:///{folder}/study.db", {}))
    check_of_optuna(foreign_trials(f"optuna:{folder}/study.db", {}))
    found = reported(f"optuna:sqlite:///{folder}/study.db", tmp_path / "out")
    assert found["counts"] == {"done": 10, "failed": 1, "pruned": 1, "running": 0}
    assert found["findings"][0]["sentence"].startswith("act gelu is better than relu: it is ahead by 10.0 points")
    assert found["best"]["values"] == {"lr": 0.01, "units": 32, "act": "gelu"}
    assert digest_of(folder) == before


def test_a_journal_of_optuna(tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    run_studies(JournalStorage(JournalFileBackend(str(file))))
    before = digest_of(tmp_path)
    check_of_optuna(foreign_trials(f"optuna:{file}", {}))
    assert digest_of(tmp_path) == before


def test_several_studies_are_stages_unless_one_is_named(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/study.db"
    run_studies(store, ("one", "two"))
    found = foreign_trials(f"optuna:{store}", {})
    assert {trial.stage for trial in found.trials} == {"one", "two"}
    check_of_optuna(foreign_trials(f"optuna:{store}", {"study": "two"}))
    other = optuna.create_study(storage=store, study_name="other", direction="minimize")
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with pytest.raises(RequestError, match="choose one: --map study=NAME, of one, other, two"):
        foreign_trials(f"optuna:{store}", {})
    with pytest.raises(RequestError, match=r"has no study twoo\. Did you mean two\?"):
        foreign_trials(f"optuna:{store}", {"study": "twoo"})


@pytest.mark.after
@pytest.mark.usefixtures("shared_ray")
def test_a_folder_of_ray_tunes_results(tmp_path: Path) -> None:
    """Written by Tune: a grid with two seeds, one trial that is stopped early and one that fails."""
    from ray import tune
    from ray.tune.logger import JsonLoggerCallback

    from cnnsearch.execution.machine.hardware import Layout
    from cnnsearch.execution.on_ray import cluster
    from cnnsearch.spec.sweep import RunSpec

    def train(config: Mapping[str, Any]) -> None:
        for step in range(2):
            if config["seed"] == 1 and config["net"]["act"] == "relu" and config["lr"] == 0.1:
                raise RuntimeError
            if step == 1 and config["seed"] == 1 and config["net"]["act"] == "gelu" and config["lr"] == 0.1:
                return
            gain = 0.1 * (config["net"]["act"] == "gelu")
            tune.report({"val_accuracy": 0.5 + gain + 0.1 * step, "bad": float("nan")})

    space = {
        "lr": tune.grid_search([0.1, 0.01]),
        "net": {"act": tune.grid_search(["relu", "gelu"])},
        "seed": tune.grid_search([0, 1]),
    }
    with cluster.started(Layout("cpu", 1, 1, 0.0), RunSpec(dashboard=False), None):
        logger = JsonLoggerCallback()  # as Tune has it, unless it is turned off, as sweeps of ours do
        run = tune.RunConfig(name="mine", storage_path=str(tmp_path), verbose=0, callbacks=[logger])
        once = tune.TuneConfig(reuse_actors=True)
        tune.Tuner(train, param_space=space, run_config=run, tune_config=once).fit()
    for pickled in tmp_path.rglob("*.pkl"):
        pickled.write_bytes(Bomb.made())  # nothing ever opens it
    found = foreign_trials(str(tmp_path / "mine"), {})
    assert (found.raw.tool, found.roles.score, found.roles.seed) == ("Ray Tune", "val_accuracy", "seed")
    assert set(found.roles.axes) == {"lr", "net/act"}
    states = [trial.state for trial in found.trials]
    assert (states.count(State.DONE), states.count(State.PRUNED), states.count(State.FAILED)) == (6, 1, 1)
    scores = {one.judged_by for one in found.trials if one.state is State.DONE}
    assert scores == {0.6, 0.7}
    assert reported(tmp_path / "mine", tmp_path / "out")["trials"] == 8


class Bomb:
    """What a pickle of a stranger may do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)

    @classmethod
    def made(cls) -> bytes:
        return pickle.dumps(cls())


def test_results_of_ray_that_were_cut_off(tmp_path: Path) -> None:
    for number in range(6):
        trial = tmp_path / f"trial_{number}"
        trial.mkdir()
        (trial / "params.json").write_text(json.dumps({"lr": 0.1 * (number + 1)}))
        line = json.dumps({"loss": number, "training_iteration": 1, "trial_id": f"t{number}"})
        (trial / "result.json").write_text(f'{line}\n{{"loss": 7, "train' if number else "")
        (trial / "result.pkl").write_bytes(Bomb.made())
    found = foreign_trials(str(tmp_path), {})
    assert [trial.judged_by for trial in found.trials] == [None, 1, 2, 3, 4, 5]
    assert found.trials[0].state is State.FAILED


WANDB = """"Name","State","Notes","User","Tags","Created","Runtime","Sweep","batch_size","lr","optimizer","seed","epoch","val_acc","val_loss"
"rural-sweep-1","finished","-","me","","2025-05-05T10:00:00.000Z","12","abc","16","0.1","adam","0","9","0.71","0.9"
"rural-sweep-2","finished","-","me","","2025-05-05T10:01:00.000Z","13","abc","16","0.1","sgd","0","9","0.61","1.9"
"rural-sweep-3","crashed","-","me","","2025-05-05T10:02:00.000Z","3","abc","32","0.1","adam","0","","",""
"rural-sweep-4","finished","-","me","","2025-05-05T10:03:00.000Z","14","abc","32","0.1","adam","1","9","0.72","0.8"
"rural-sweep-5","killed","-","me","","2025-05-05T10:04:00.000Z","14","abc","32","0.1","sgd","1","4","0.52","1.8"
"""  # noqa: E501


def test_an_export_of_wandb(tmp_path: Path) -> None:
    """In the form of the CSV that the page of a project exports."""
    (tmp_path / "wandb_export.csv").write_text(WANDB)
    found = foreign_trials(f"wandb:{tmp_path}/wandb_export.csv", {})
    assert (found.raw.tool, found.roles.score, found.roles.seed) == ("W&B", "val_acc", "seed")
    assert found.roles.axes == ("batch_size", "optimizer")
    assert found.roles.fixed == {"lr": 0.1}
    assert [trial.state for trial in found.trials] == ["done", "done", "failed", "done", "pruned"]
    assert found.trials[0].id == "rural-sweep-1"
    assert found.trials[0].values == {"batch_size": 16, "optimizer": "adam"}


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "semicolons.csv"])
def test_tables(tmp_path: Path, name: str) -> None:
    file, frame = tmp_path / name, table()
    if name.endswith(".parquet"):
        frame["nested"] = pd.Series([[1]] * len(frame), dtype=object)
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False, sep={"t.tsv": "\t", "semicolons.csv": ";"}.get(name, ","))
    found = reported(file, tmp_path / "out")
    assert (found["score"], found["seed"], found["axes"]) == ("val_accuracy", "seed", ["lr", "model", "batch_size"])
    assert found["left_out"] == ["run", "runtime"]
    assert (found["trials"], found["settings"]) == (36, 12)
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "intervals cover other seeds, not other images" in text
    assert "Columns that were not used.** run and runtime." in text


def test_columns_are_what_map_says(tmp_path: Path) -> None:
    frame = table().rename(columns={"val_accuracy": "quality", "seed": "draw"}).assign(part="x", extra=1.5)
    frame["val_loss"] = 1 - frame["quality"]
    frame.to_csv(tmp_path / "t.csv", index=False)
    maps = ["score=quality", "better=more", "seed=draw", "stage=part", "axes=model,lr"]
    found = reported(tmp_path / "t.csv", tmp_path / "out", *[word for one in maps for word in ("--map", one)])
    assert (found["score"], found["seed"], found["stage"], found["axes"]) == (
        "quality",
        "draw",
        "part",
        ["model", "lr"],
    )
    assert found["settings"] == 6
    found = reported(tmp_path / "t.csv", tmp_path / "out")  # by their names
    assert (found["score"], found["is_larger_better"], found["seed"]) == ("val_loss", False, None)


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("place", ["sqlite:///{}/mlflow.db", "{}/mlruns"])
def test_a_store_of_mlflow(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = place.format(tmp_path / "store")
    (tmp_path / "store").mkdir()
    client = MlflowClient(tracking_uri=place)
    experiment = client.create_experiment("mine")
    for number, row in enumerate(table().to_dict("records")):
        run = client.create_run(experiment, start_time=number).info.run_id
        params = [Param(name, str(row[name])) for name in ("lr", "model", "batch_size", "seed")]
        last = float("nan") if number == 2 else row["val_accuracy"]
        metrics = [Metric("val_accuracy", 0.1, 1, 1), Metric("val_accuracy", last, 2, 2), Metric("group/x", 1.0, 1, 1)]
        client.log_batch(run, params=params, metrics=metrics)
        client.set_terminated(run, "FAILED" if number == 1 else "FINISHED", end_time=number)
        if number == 0:
            client.delete_run(run)
    del client
    before = digest_of(tmp_path / "store")
    found = foreign_trials(f"mlflow:{place}", {})
    assert (found.raw.tool, found.roles.score, found.roles.seed) == ("MLflow", "val_accuracy", "seed")
    assert set(found.roles.axes) == {"lr", "model", "batch_size"}
    states = [trial.state for trial in found.trials]
    assert (states.count(State.DONE), states.count(State.FAILED)) == (34, 1)
    wanted = table()["val_accuracy"].tolist()[3:]
    assert sorted(one.judged_by for one in found.trials if one.judged_by and one.state is State.DONE) == sorted(wanted)
    assert {type(trial.values["lr"]) for trial in found.trials} == {float}
    assert reported(f"mlflow:{place}", tmp_path / "out")["settings"] == 11  # of one, no run has a score
    assert digest_of(tmp_path / "store") == before


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(
    "tool", ["optuna:{}/journal.log", "optuna:sqlite:///{}/o.db", "mlflow:sqlite:///{}/m.db", "csv:{}"]
)
def test_what_share_wrote_is_read_back(results: Path, tmp_path: Path, tool: str) -> None:
    to = tool.format(tmp_path)
    assert ask(results, "--to", to, command="share").returncode == 0
    source = f"{tmp_path}/trials.csv" if tool.startswith("csv") else to
    found = foreign_trials(source, {})
    assert len(found.trials) == 6
    assert found.roles.seed == "seed"
    assert found.roles.score == ("val_accuracy" if "optuna" in tool or "csv" in tool else "best.val_accuracy")
    by_stage = {trial.stage.rpartition("/")[2] for trial in found.trials}
    assert by_stage == {"grid", "dropout"}
    assert set(found.roles.axes) >= {"optimizer", "lr"}
    assert [trial.state for trial in found.trials].count(State.FAILED) == 1
    assert reported(source, tmp_path / "out")["trials"] == 6


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{}/none.csv", "there is no such file or folder"),
        ("{}/text.txt", "a table ends in .csv, .tsv or .parquet; of another tool say which, as in optuna:"),
        ("{}", "is a folder without results of Ray Tune"),
        ("ray:{}", "holds no trials of Ray Tune"),
        ("optuna:", "--from optuna:: allowed are optuna:sqlite"),
        ("optuna:{}/none.db", "cannot be read: No such file or directory"),
        ("optuna:{}/text.txt", "is no journal of Optuna: line 1: it is not JSON"),
        ("optuna:{}/pickled", "is no journal of Optuna: line 1: it is not"),
        ("optuna:sqlite:///{}/text.txt", "is no store of this version of Optuna: "),
        ("optuna:sqlite:///{}/other.db", "is no store of this version of Optuna: "),
        ("optuna:{}/fifo", "cannot be read: it is a FIFO, not a file"),
        ("mlflow:{}/text.txt", "is no store of MLflow that can be read: "),
        ("mlflow:sqlite:///{}/other.db", "is no store of MLflow that can be read: it has no table experiments"),
        ("mlflow:{}", "holds no runs"),
        ("mlflow:http://127.0.0.1:9", "servers are not read"),
        ("{}/fifo.csv", "cannot be read: it is a FIFO, not a file"),
        ("{}/broken.parquet", "is no table that can be read: "),
        ("{}/empty.csv", "is no table that can be read: No columns to parse from file"),
        ("{}/heads.csv", "holds no trials"),
        ("{}/words.csv", "no column looks like a score; say which is: --map score=COLUMN"),
        ("{}/wide.csv", "it has more than 2,000 columns"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path, source: str, complaint: str) -> None:
    (tmp_path / "text.txt").write_text("my notes\n")
    (tmp_path / "pickled").write_bytes(Bomb.made())
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE a (b)").connection.close()
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "heads.csv").write_text("lr,acc\n")
    (tmp_path / "words.csv").write_text("a,b\nx,y\nx,z\n")
    (tmp_path / "wide.csv").write_text(",".join(f"c{number}" for number in range(3000)) + "\n")
    answer = ask("--from", source.format(tmp_path), "--out", tmp_path / "out", command="report")
    assert answer.returncode == 2, answer.stderr
    assert complaint in answer.stderr
    assert len(answer.stderr.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--from", "{}/t.csv"], "--out: say in which folder the report of --from goes"),
        (["--from", "{}/t.csv", "--out", "{}/out", "results"], "it goes with --out, --map and --json alone"),
        (["--from", "{}/t.csv", "--out", "{}/out", "--all"], "it goes with --out, --map and --json alone"),
        (["--from", "{}/t.csv", "--out", "{}/t.csv"], "is no folder"),
        (["--from", "{}/t.csv", "--out", "{}/sweep"], "holds the results of a sweep"),
        (["--from", "{}/t.csv", "--out", "{}/out", "--map", "score=x"], "--map score=x: there is no such column"),
        (["--from", "{}/t.csv", "--out", "{}/out", "--map", "score"], "--map score: allowed are score=COLUMN"),
        (["--from", "{}/t.csv", "--out", "{}/out", "--map", "sed=x"], "Did you mean seed?"),
        (["--from", "{}/t.csv", "--out", "{}/out", "--map", "better=x"], "allowed are more and less"),
        (["--from", "{}/t.csv", "--out", "{}/out", "--map", "score=model"], "the score, model, holds words"),
        (["--from", "{}/t.csv", "--out", "{}/out", "--map", "score=lr"], "say whether more of lr is better"),
        (["--from", "{}/t.csv", "--out", "{}/out", "--map", "study=x"], "is for Optuna's stores"),
        (["--map", "seed=x"], "--map says what columns of another tool's trials are: it goes with --from"),
        ([], "say what to report on: a folder of results, or trials of another tool with --from"),
    ],
)
def test_requests_that_are_wrong(tmp_path: Path, words: list[str], complaint: str) -> None:
    table().to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.yaml").write_text("name: x\n")
    answer = ask(*[word.format(tmp_path) for word in words], command="report")
    assert answer.returncode == 2
    assert complaint in answer.stderr
    assert not (tmp_path / "out").exists()


def test_names_of_strangers_are_only_text(tmp_path: Path) -> None:
    odd = "<script>alert(1)</script>"
    frame = table().rename(columns={"model": odd})
    frame[odd] = [f"{odd}{value}\x1b[31m" for value in frame[odd]]
    frame.to_csv(tmp_path / "t.csv", index=False)
    answer = ask("--from", tmp_path / "t.csv", "--out", tmp_path / "out", command="report")
    assert answer.returncode == 0
    assert "\x1b" not in answer.stdout
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert odd not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_same_trials_give_the_same_report(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "t.csv", index=False)
    pages = []
    for _ in range(2):
        reported(tmp_path / "t.csv", tmp_path / "out")
        pages.append((tmp_path / "out" / "report.html").read_bytes())
    assert pages[0] == pages[1]
    assert len(list((tmp_path / "out" / "plots").iterdir())) == 1


def test_what_people_read(tmp_path: Path) -> None:
    pd.DataFrame({"lr": [0.1, 0.2], "accuracy": [0.5, 0.6]}).to_csv(tmp_path / "t.csv", index=False)
    answer = ask("--from", tmp_path / "t.csv", "--out", tmp_path / "out", command="report")
    assert answer.stdout.splitlines() == [
        "The best setting by accuracy is lr 0.2: accuracy 60.0 %. Each setting was run once, which is too little to "
        "say whether another of the 2 is better.",
        "read    settings are lr, the score is accuracy and no column is a seed",
        f"report  {tmp_path}/out/report.html",
    ]
