"""The objects that `--json` prints, one for each way a command can end: the only place that says what is in them.

`schema` is their JSON Schema; docs/json.md is made from these classes. Fields are only ever added.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, TypeAdapter

Verdict = Literal["clear", "suggestive", "cannot tell"]
Status = Literal["done", "failed", "diverged", "pruned", "left"]


def _encodable(value: Any) -> Any:
    """Text that can be encoded: bytes of a file name that are no text become `\\udcff` and the like."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_encodable)]
Value = Text | bool | int | FiniteFloat | None
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class Part(BaseModel):
    """A part of such an object."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class Score(Part):
    """An accuracy with its 95 % interval."""

    value: FiniteFloat = Field(description="accuracy from 0 to 1, the mean over seeds")
    low: FiniteFloat = Field(description="lower end of the interval")
    high: FiniteFloat = Field(description="upper end of the interval")
    images: int = Field(description="images it was measured on")
    seeds: int = Field(description="networks it is the mean of")
    covers: Literal["seeds and images", "images"] = Field(
        description="what the interval covers: other seeds and other images, or with fewer than three seeds other "
        "images alone"
    )


class Setting(Part):
    """A setting: trials that differ in nothing but their seeds."""

    name: Text = Field(description="the setting in words, by the axes that vary")
    stage: Text = Field(description="stage of the sweep")
    values: dict[str, Value] = Field(description="axis -> value, for every axis")
    trials: list[str] = Field(description="ids of its trials, one for each seed")
    seeds: list[int] = Field(description="seeds of these trials")
    validation: Score | None = Field(description="accuracy on the validation images; null where it was not measured")
    test: Score | None = Field(
        description="accuracy on the test images; null where it was not measured, or the test set is sealed"
    )


class Best(Setting):
    """The best setting by validation."""

    weights_of: str = Field(description="id of its trial with the best validation accuracy")
    weights: Text | None = Field(description="path or URI of that trial's weights; null where they are not kept")


Subject = Literal["model", "search", "axis", "trouble", "stage", "overfitting", "chance", "divergence", "comparison"]


class Claim(Part):
    """One sentence of the report's findings."""

    kind: Literal[
        "model", "search", "axis", "trouble", "stage", "overfitting", "chance", "divergence", "comparison"
    ] = Field(
        description="what it is about: models, a search, an axis, classes or seeds that are missing, a later "
        "stage, overfitting, chance, diverged trials, what can be compared at all"
    )
    sentence: Text = Field(description="the sentence")
    verdict: Verdict = Field(description="how sure one can be of it")


class Difference(Part):
    """A comparison behind the report's sentences: by how much a is more accurate than b on the judged images."""

    kind: Literal["model", "axis", "change", "settings"] = Field(
        description="two models, two values of an axis, a setting before and after going on, two settings of a later "
        "stage"
    )
    stage: Text | None = Field(description="stage whose settings are compared; null for change and settings")
    axis: str | None = Field(description="the axis of an axis comparison")
    model: str | None = Field(description="the one model that an axis comparison is restricted to")
    a: Value = Field(description="model, value, or id of the setting's first trial")
    b: Value = Field(description="what it is compared with; null for change: what it started from")
    difference: FiniteFloat = Field(description="accuracy of a minus that of b, from -1 to 1")
    low: FiniteFloat = Field(description="lower end of its 95 % interval")
    high: FiniteFloat = Field(description="upper end of its 95 % interval")
    verdict: Verdict = Field(description="how sure one can be of it, corrected for all comparisons of the report")
    repeats: Literal["pairs", "seeds", "networks"] = Field(
        description="what was repeated: matched pairs of settings, seeds, or nothing but these networks"
    )
    pairs: int = Field(description="pairs of settings compared")
    seeds: int = Field(description="seeds of the setting that has fewest")


class Answer(Part):
    """The sweep's question answered."""

    sentence: Text = Field(description="the first sentence of the report")
    verdict: Verdict = Field(description="how sure it is that the best setting by validation is the best")


class Trial(Part):
    """One trial."""

    id: str = Field(description="its id, also the name of its folder in trials/")
    stage: Text = Field(description="stage of the sweep")
    status: Status = Field(description="how it ended; left: it has not")
    settings: dict[str, Value] = Field(description="every hyperparameter, with the seed")
    parent: str | None = Field(None, description="id of the trial whose weights it starts from")
    error: Text | None = Field(None, description="why it failed, or why it was stopped early")
    epochs_done: int | None = Field(None, description="epochs it trained")
    best_epoch: int | None = Field(None, description="epoch with the best validation accuracy")
    validation_accuracy: Share | None = Field(None, description="accuracy on the validation images at that epoch")
    test_accuracy: Share | None = Field(None, description="accuracy on the test images at that epoch")
    seconds: FiniteFloat | None = Field(None, description="seconds of training and evaluating")


class Counts(Part):
    """Number of trials of each status."""

    done: int = Field(0, description="trained to the end")
    failed: int = Field(0, description="ended by an error; the same command tries them again")
    diverged: int = Field(0, description="the loss was no longer a number")
    pruned: int = Field(0, description="stopped early by a rule")
    left: int = Field(0, description="not ended")


class Results(Part):
    """What a sweep has shown so far."""

    sweep: Text = Field(description="name of the sweep")
    results: Text = Field(description="folder or URI of its results")
    report: Text | None = Field(description="path or URI of report.html; null where no trial has ended")
    planned: int = Field(description="trials of the sweep, ended or not")
    counts: Counts = Field(description="number of trials of each status")
    outside: int = Field(
        description="recorded trials that the sweep as it is now does not have, as after a change to its grid"
    )
    test_is_sealed: bool = Field(description="whether the test set is sealed")
    judged_on: Literal["test", "validation"] = Field(description="images that settings are compared on")
    answer: Answer = Field(description="the answer, and how sure it is")
    best: Best | None = Field(description="the best setting by validation; null where no setting has finished")
    not_told_apart: list[Setting] = Field(description="the settings that may be as good as the best one")
    findings: list[Claim] = Field(description="what the report says was found")
    comparisons: list[Difference] = Field(description="every comparison the report may state")
    trials: list[Trial] = Field(description="the trials that have ended; of a run, also those that are left and known")


class Run(Results):
    """`cnnsearch sweep` ran to its end, or to a limit that it was given."""

    kind: Literal["run"] = "run"
    exit_code: int = Field(
        description="0; 1: trials failed or diverged; what --exit-code-when-left says where trials are left for later"
    )
    left_for_later: int = Field(description="trials that --max-time or --max-trials left for another run")
    left_because: Literal["time", "trials"] | None = Field(description="the limit that left them")
    seconds: FiniteFloat = Field(description="seconds that this run took")
    go_on: Text | None = Field(description="the command that goes on; null where no trial is left")


class Unsealed(Results):
    """`cnnsearch unseal` opened the test set."""

    kind: Literal["unsealed"] = "unsealed"
    exit_code: Literal[0] = 0
    tested: int = Field(description="trials that were tested now")


class Report(Results):
    """`cnnsearch report` made the report of one results folder again."""

    kind: Literal["report"] = "report"
    exit_code: Literal[0] = 0


class ComparisonClaim(Part):
    """One sentence of a comparison's findings."""

    sentence: Text = Field(description="the sentence")
    verdict: Verdict = Field(description="how sure one can be of it")


class Comparison(Part):
    """`cnnsearch report` compared several results folders."""

    kind: Literal["comparison"] = "comparison"
    exit_code: Literal[0] = 0
    report: Text = Field(description="path of the comparison's report.html")
    answer: Answer = Field(description="which sweep is best, and how sure that is")
    findings: list[ComparisonClaim] = Field(description="what the comparison says was found")
    sweeps: list[Results] = Field(description="what each of them has shown")


class PlannedStage(Part):
    """One stage of a plan."""

    planned: int = Field(description="trials of the stage")
    planned_are: Literal["exact", "at most"] = Field(description="whether fewer may turn out to be needed")
    search: str = Field(description="grid, random, or the searcher")
    to_run: int = Field(description="trials that have not ended")
    seconds: FiniteFloat = Field(description="expected seconds until they have")
    seconds_are: Literal["expected", "at most"] = Field(
        description="at most: trials may be stopped early, which is not foreseen"
    )


class Plan(Part):
    """`cnnsearch sweep --dry-run`: nothing was started."""

    kind: Literal["plan"] = "plan"
    exit_code: Literal[0] = 0
    sweep: Text = Field(description="name of the sweep")
    results: Text = Field(description="folder or URI where its results go")
    planned: int = Field(description="trials of the sweep, ended or not")
    planned_are: Literal["exact", "at most"] = Field(description="whether fewer may turn out to be needed")
    done: int = Field(description="trials that need not run any more")
    outside: int = Field(
        description="recorded trials that the sweep as it is now does not have, as after a change to its grid"
    )
    seconds: FiniteFloat = Field(description="expected seconds of what is left")
    memory_bytes: int = Field(description="expected peak memory of the run on this machine")
    disk_bytes: int = Field(description="expected bytes of new results")
    trials_at_once: int = Field(description="trials that run at a time")
    threads: int = Field(description="threads of each trial")
    precision: str = Field(description="fp32 or bf16")
    stages: dict[str, PlannedStage] = Field(description="stage -> what is planned of it")
    trials: list[Trial] = Field(description="the trials that are known before the first one runs")


class RunningTrial(Part):
    """A trial that is being trained."""

    id: str = Field(description="its id")
    name: Text = Field(description="its setting in words, by the axes that vary")
    stage: Text = Field(description="stage of the sweep")
    epoch: int = Field(description="epochs it has trained")
    epochs: int = Field(description="epochs it will train, unless a rule stops it")
    validation_accuracy: Share | None = Field(description="accuracy on the validation images after its last epoch")


class BestSoFar(Part):
    """The trial with the best validation accuracy so far."""

    id: str = Field(description="its id")
    name: Text = Field(description="its setting in words, by the axes that vary")
    epoch: int | None = Field(description="epoch with that accuracy")
    validation_accuracy: Share = Field(description="accuracy on the validation images")


class SweepStatus(Part):
    """How far one sweep is."""

    sweep: Text = Field(description="name of the sweep; of the folder where that is not known")
    results: Text = Field(description="folder of its results")
    state: Literal["running", "finished", "stopped"] = Field(
        description="running: a process holds the folder; finished: no trial is left; stopped: neither"
    )
    by: Text | None = Field(description="the process that runs it")
    planned: int | None = Field(description="trials of the sweep, ended or not; null where that cannot be told")
    counts: Counts = Field(description="number of trials of each status; those that run are among those left")
    running: list[RunningTrial] = Field(description="the trials that are being trained")
    seconds_left: FiniteFloat | None = Field(
        description="expected seconds until the run ends, as it has said last; null where no run is active"
    )
    best: BestSoFar | None = Field(description="the best trial so far; null where none has ended")
    notes: list[Text] = Field(description="what is damaged or cannot be read")


class StatusOfSweeps(Part):
    """`cnnsearch status` looked at the results of some sweeps."""

    kind: Literal["status"] = "status"
    exit_code: Literal[0] = 0
    sweeps: list[SweepStatus] = Field(description="each of them, by name")


class Changed(Part):
    """A hyperparameter in which two trials differ."""

    axis: str = Field(description="the hyperparameter")
    here: Value = Field(description="its value in the trial that is explained")
    there: Value = Field(description="its value in the other trial")


class Neighbour(Part):
    """A trial of the same stage that differs in as few settings as any."""

    id: str = Field(description="its id")
    status: Status = Field(description="how it ended")
    changed: list[Changed] = Field(description="the settings in which it differs")
    validation_accuracy: Share | None = Field(description="accuracy on the validation images at its best epoch")


class Curve(Part):
    """A score of a trial by epoch."""

    name: Literal["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"] = Field(
        description="which score; those of training are of the images as they were trained on"
    )
    epochs: list[int] = Field(description="the epochs; 0 is before training")
    values: list[FiniteFloat | None] = Field(description="the score after each of them; null: no number")
    best: FiniteFloat = Field(description="the lowest loss or the highest accuracy")
    best_epoch: int = Field(description="the first epoch with it")


class Suggestion(Part):
    """One thing to try."""

    text: Text = Field(description="what to try, and why")
    command: Text | None = Field(description="the command that does it, where there is one")


class Explanation(Part):
    """`cnnsearch explain` looked at one trial."""

    kind: Literal["explanation"] = "explanation"
    exit_code: Literal[0] = 0
    sweep: Text = Field(description="name of the sweep")
    results: Text = Field(description="folder of its results")
    trial: Trial = Field(description="the trial; its error says why it failed, diverged or was stopped")
    name: Text = Field(description="its setting in words, by the axes that vary")
    is_best: bool = Field(description="whether it stands for the best setting by validation")
    validation: Score | None = Field(description="accuracy on the validation images; null where it was not measured")
    test: Score | None = Field(
        description="accuracy on the test images; null where it was not measured, or the test set is sealed"
    )
    setting: Setting | None = Field(
        description="its setting, with the scores over all seeds; null where the trial was not trained to its end"
    )
    curves: list[Curve] = Field(description="losses and accuracies by epoch, where they were measured")
    neighbours: list[Neighbour] = Field(
        description="trials of its stage that differ from it in fewest settings, the best first"
    )
    place: Text | None = Field(description="of a failure: the file, line and function that it came from")
    log: list[Text] = Field(description="what is known of its last epochs, a line each")
    to_try: list[Suggestion] = Field(description="what to try next, the first thing first")
    folder: Text = Field(description="folder of its files")
    files: list[Text] = Field(description="names of the files in it")
    again: Text | None = Field(description="the command that trains the sweep; null where it is not recorded")


class Progress(Part):
    """How far a run came that did not reach its end."""

    sweep: Text = Field(description="name of the sweep")
    results: Text = Field(description="folder or URI of its results")
    planned: int = Field(description="trials of the sweep, ended or not")
    counts: Counts = Field(description="number of trials of each status")


class Stopped(Part):
    """Ctrl-C or SIGTERM ended a command."""

    kind: Literal["stopped"] = "stopped"
    exit_code: Literal[130] = 130
    message: Text = Field(description="what standard error says, too")
    go_on: Text | None = Field(None, description="the command that goes on")
    progress: Progress | None = Field(None, description="how much is done; null where no trial had begun")


class Failure(Part):
    """A command ended with an error."""

    kind: Literal["error"] = "error"
    exit_code: Literal[1, 2] = Field(description="2: the request was wrong, nothing was started; 1: anything else")
    error: Text = Field(description="what standard error says, too")
    go_on: Text | None = Field(None, description="the command that goes on once the cause is gone")
    progress: Progress | None = Field(None, description="how much is done; null where no trial had begun")


Told = Run | Plan | Unsealed | Report | Comparison | StatusOfSweeps | Explanation | Stopped | Failure
"""What a command prints with `--json`, told apart by `kind`."""
KINDS: tuple[type[BaseModel], ...] = (
    Run, Plan, Unsealed, Report, Comparison, StatusOfSweeps, Explanation, Stopped, Failure,
)  # fmt: skip


def line(told: Told) -> str:
    """The object as one line of JSON in ASCII, which any terminal and pipe can take."""
    return json.dumps({"kind": told.kind, "exit_code": told.exit_code, **told.model_dump()}, allow_nan=False)


def schema() -> dict[str, Any]:
    """The JSON Schema of what `--json` prints."""
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[Told, Field(discriminator="kind")])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **adapter.json_schema(mode="serialization")}
