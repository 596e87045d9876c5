"""The objects that `--json` prints, one for each way a command can end: the only place that says what is in them.

`schema` is their JSON Schema; docs/json.md is made from these classes. Fields are only ever added.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter

from cnnsearch.told_exchange import (
    ConvertedSweep as ConvertedSweep,
    ForeignReport as ForeignReport,
    Shared as Shared,
    SweepSchema as SweepSchema,
)
from cnnsearch.told_parts import (  # all of them under one name: told.Score
    Accuracy as Accuracy,
    Answer as Answer,
    Apart as Apart,
    Best as Best,
    Candidate as Candidate,
    Changed as Changed,
    CheckedImage as CheckedImage,
    CheckedOdd as CheckedOdd,
    CheckedPair as CheckedPair,
    Claim as Claim,
    Condition as Condition,
    Counts as Counts,
    Curve as Curve,
    Difference as Difference,
    Differing as Differing,
    HeldAgainst as HeldAgainst,
    ImagesOfBoth as ImagesOfBoth,
    Neighbour as Neighbour,
    Part as Part,
    Prediction as Prediction,
    Repeated as Repeated,
    Sameness as Sameness,
    Score as Score,
    Setting as Setting,
    SettingOfBoth as SettingOfBoth,
    Share as Share,
    SplitOfBoth as SplitOfBoth,
    Start as Start,
    Status as Status,
    Subject as Subject,
    Suggestion as Suggestion,
    Text as Text,
    Trial as Trial,
    Value as Value,
    Verdict as Verdict,
)


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
    metric: str = Field(
        "accuracy", description="the sweep's metric: scores and differences are of it, differences as gains"
    )
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
    left_out: list[Text] = Field(description="for each network that cannot take the images' size: what it needs")
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
    metric: str = Field("accuracy", description="the sweep's metric")
    validation_score: FiniteFloat | None = Field(
        None, description="the sweep's metric on the validation images after its last epoch"
    )


class BestSoFar(Part):
    """The trial that is the best so far by the sweep's metric on validation."""

    id: str = Field(description="its id")
    name: Text = Field(description="its setting in words, by the axes that vary")
    epoch: int | None = Field(description="epoch with that score")
    validation_accuracy: Share = Field(description="accuracy on the validation images")
    metric: str = Field("accuracy", description="the sweep's metric")
    validation_score: FiniteFloat | None = Field(None, description="the sweep's metric on the validation images")


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


class Predictions(Part):
    """`cnnsearch predict` has classified images."""

    kind: Literal["predictions"] = "predictions"
    exit_code: Literal[0, 1] = Field(description="1: some images cannot be read")
    results: Text = Field(description="folder of the sweep's results")
    trial: Text = Field(description="id of the trial whose network was used")
    images: int = Field(description="images given")
    unreadable: int = Field(description="of these, images that cannot be read")
    accuracy: Accuracy | None = Field(description="share of right answers; null where the class of no image is known")
    out: Text | None = Field(description="file of the answers; null where they are in `predictions`")
    confusion: Text | None = Field(description="file of the confusion matrix, if one was written")
    predictions: list[Prediction] | None = Field(description="the answers; null where they are in a file")


class Checked(Part):
    """`cnnsearch check` has looked at images."""

    kind: Literal["check"] = "check"
    exit_code: Literal[0] = 0
    source: Text = Field(description="the images, as they were given")
    images: int = Field(description="images that could be read")
    classes: dict[str, int] = Field(description="class -> its images")
    small_classes: list[Text] = Field(description="classes far smaller than others")
    warnings: list[Text] = Field(description="images that were skipped, and what is wrong with the split")
    pairs_found: int = Field(description="pairs of images that show the same picture")
    across_splits: int = Field(description="of these, pairs in different splits")
    labels_differ: int = Field(description="of these, pairs with different labels")
    pairs: list[CheckedPair] | None = Field(
        description="the pairs, those with different labels first; null where they are in a file"
    )
    standing_out: list[CheckedOdd] = Field(description="images of one colour, of unusual size or of rare mode")
    out: Text | None = Field(description="file of the table, if one was written")


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
    log_file: Text | None = Field(None, description="file with a line for each epoch; null where none was written")
    to_try: list[Suggestion] = Field(description="what to try next, the first thing first")
    folder: Text = Field(description="folder of its files")
    files: list[Text] = Field(description="names of the files in it")
    again: Text | None = Field(description="the command that trains the sweep; null where it is not recorded")
    repeat: Text | None = Field(
        None,
        description="the command that trains this trial again and compares; null where there is nothing to compare",
    )


class Reproduction(Part):
    """`cnnsearch reproduce` trained a recorded trial again."""

    kind: Literal["reproduction"] = "reproduction"
    exit_code: Literal[0, 1] = Field(description="0: identical or within; 1: different")
    sweep: Text = Field(description="name of the sweep")
    results: Text = Field(description="folder of its results, which was only read")
    trial: str = Field(description="id of the trial")
    name: Text = Field(description="its setting in words, by the axes that vary")
    is_best: bool = Field(description="whether it was chosen as the best by validation, not named")
    folder: Text = Field(description="folder of the training now")
    verdict: Sameness = Field(
        description="identical: every epoch's numbers and all predictions have the same bits; within: the same end, "
        "and accuracies no further apart than other images or other seeds explain; different: neither"
    )
    reason: Text | None = Field(description="why it is different; null where it is not")
    status: Status = Field(description="how the trial is recorded to have ended")
    status_now: Status = Field(description="how it ended now")
    epochs: int = Field(description="epochs that were compared")
    epochs_planned: int = Field(description="epochs of the trial, had nothing stopped it")
    validation_accuracy: Apart | None = Field(description="null where no epoch has it in both")
    validation_loss: Apart | None = Field(description="null where no epoch has it in both")
    answers: list[Repeated] = Field(description="validation and test images; empty where no predictions are recorded")
    conditions: list[Condition] = Field(description="what differs between then and now, as far as it is recorded")
    starts_from: list[Start] = Field(description="the trials that it starts from, the first one first")
    seconds: FiniteFloat = Field(description="seconds of training now")
    seconds_then: FiniteFloat | None = Field(description="seconds of training then")


class Diff(Part):
    """`cnnsearch diff` held results folder B against results folder A."""

    kind: Literal["diff"] = "diff"
    exit_code: Literal[0, 1] = Field(description="1: B is worse, and --fail-on-regression was given")
    a: Text = Field(description="results folder A")
    b: Text = Field(description="results folder B")
    sweep_a: Text = Field(description="name of the sweep of A")
    sweep_b: Text = Field(description="name of the sweep of B")
    settings: list[Differing] = Field(description="keys of the sweep files that differ, dotted; stages go by name")
    versions: list[Differing] = Field(description="versions, code and machine of the last runs, where they differ")
    images: ImagesOfBoth = Field(description="whether they are of the same images")
    judged_on: Literal["test", "validation"] = Field(description="images that settings are compared on")
    overall: HeldAgainst | None = Field(
        description="the mean over all settings of both; null with fewer than four, or on different images"
    )
    both: list[SettingOfBoth] = Field(description="the settings that both have, in the order of A")
    only_a: list[Setting] = Field(description="finished settings of A alone")
    only_b: list[Setting] = Field(description="finished settings of B alone")
    is_regression: bool = Field(description="whether B is worse beyond what the evidence allows, anywhere")
    notes: list[Text] = Field(description="what limits the comparison")


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


Told = (
    Run | Plan | Unsealed | Report | Comparison | StatusOfSweeps | Predictions | Checked | Explanation
    | Reproduction | Diff | SweepSchema | Shared | ForeignReport | ConvertedSweep | Stopped | Failure
)  # fmt: skip
"""What a command prints with `--json`, told apart by `kind`."""
KINDS: tuple[type[BaseModel], ...] = (
    Run, Plan, Unsealed, Report, Comparison, StatusOfSweeps, Predictions, Checked, Explanation,
    Reproduction, Diff, SweepSchema, Shared, ForeignReport, ConvertedSweep, Stopped, Failure,
)  # fmt: skip


def line(told: Told) -> str:
    """The object as one line of JSON in ASCII, which any terminal and pipe can take."""
    return json.dumps({"kind": told.kind, "exit_code": told.exit_code, **told.model_dump()}, allow_nan=False)


def schema() -> dict[str, Any]:
    """The JSON Schema of what `--json` prints."""
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[Told, Field(discriminator="kind")])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **adapter.json_schema(mode="serialization")}
