"""A sweep: stages over shared data and a shared recipe, and how the work is executed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from cnnsearch.errors import SpecError
from cnnsearch.spec.confirm import CONFIRM, Confirm
from cnnsearch.spec.data import DataSpec, FoldsSplit
from cnnsearch.spec.document import Document
from cnnsearch.spec.explain import explain
from cnnsearch.spec.fitting import Misfits, without_misfits
from cnnsearch.spec.metric import DEFAULT, MEASURES, METRICS, Measure, MetricName
from cnnsearch.spec.model_names import knowing
from cnnsearch.spec.part import Float, Int, Part, SpecProblemError, SpecProblemsError, Spelled
from cnnsearch.spec.problems import fold_problems, problems, unmeasured
from cnnsearch.spec.settings import Settings, TrainSpec
from cnnsearch.spec.stage import Stage


class RunSpec(Part):
    """How the work is executed. Nothing here changes what a trial is, only how fast and where it runs."""

    device: Literal["auto", "cpu", "cuda", "xpu", "mps"] = Field(
        "auto",
        description="cuda: NVIDIA's GPUs; xpu: Intel's; mps: Apple's; auto: the first of these that there is, else cpu",
    )
    trials_at_once: Literal["auto"] | Int = Field(
        "auto", description="trials that run at the same time; auto: as many as cores, GPUs and measured memory allow"
    )
    threads_per_trial: Literal["auto"] | Int = Field("auto", description="CPU threads per trial; auto: one")
    gpus_per_trial: Literal["auto"] | Float = Field(
        "auto",
        description="GPUs per trial; 0.25 puts four on one GPU; auto: as many as measured memory allows, up to 8",
    )
    checkpoint_seconds: Float = Field(60.0, ge=0, description="minimum time between checkpoints of a trial, in seconds")
    checkpoint_epochs: Int | None = Field(
        None, ge=1, description="epochs between checkpoints, however much time has passed"
    )
    max_retries: Int = Field(
        2, ge=0, le=100, description="how often a trial is restarted after its process died or hung"
    )
    patience_seconds: Float = Field(
        120.0,
        gt=0,
        description="a trial that is silent for this long, and for ten times its usual epoch, counts as hung",
    )
    keep: Literal["best", "all", "state"] = Field(
        "best",
        description="weights that are kept. best: of the best trial of each model, and of each group that a stage "
        "starts from; all: of every trial; state: all, and the training state needed to train for more epochs",
    )
    dashboard: bool = Field(True, description="start the Ray dashboard, for this machine only")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("trials_at_once", "threads_per_trial"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise SpecProblemError((name,), f"given {value}; allowed: auto, or a whole number from 1")
        gpus = self.gpus_per_trial
        if gpus != "auto" and not (0 < gpus <= 64 and (gpus <= 1 or gpus % 1 == 0)):
            raise SpecProblemError(
                ("gpus_per_trial",), f"given {gpus:g}; allowed: a fraction up to 1, a whole number up to 64, or auto"
            )
        return self


class EvidenceSpec(Part):
    """What the report may look at."""

    test: Literal["open", "sealed"] = Field(
        "open",
        description="sealed: no test image is looked at, and settings are compared on validation images, until "
        "`cnnsearch unseal RESULTS`",
    )


class OwnCode(Part):
    """A file of the user's own with networks that the sweep names. Only its digest is here, never the code."""

    file: str = Field(description="path of the file, as `--code` named it")
    digest: str = Field(
        pattern=r"^[0-9a-f]{16}$", description="hash of its source and of all it imports from beside it"
    )
    models: tuple[str, ...] = Field(min_length=1, description="its networks that the sweep names")


def _own_models(code: Any) -> Iterable[str]:
    """The names of networks in a `code:` that has not been validated yet."""
    for one in code if isinstance(code, list | tuple) else ():
        models = one.models if isinstance(one, OwnCode) else one.get("models") if isinstance(one, dict) else ()
        yield from (str(model) for model in models) if isinstance(models, list | tuple) else ()


class Sweep(Part):
    """A question about hyperparameters, and the trials that answer it."""

    name: Annotated[
        str,
        Spelled(
            "[A-Za-z0-9][A-Za-z0-9_-]{0,79}",
            "up to 80 letters, digits, - and _, of which the first is a letter or digit",
        ),
    ] = Field(description="name of the results folder")
    title: str = Field("", description="title of the report")
    question: str = Field("", description="question that the sweep answers")
    metric: MetricName = Field(
        DEFAULT,
        description="what chooses on validation: each trial's best epoch and the best setting. Searchers look for it, "
        "rules stop by it, and the report is about it",
    )
    data: DataSpec = DataSpec()
    train: TrainSpec = TrainSpec()
    seeds: tuple[Int, ...] = Field((), description="run every trial once with each of these seeds")
    run: RunSpec = RunSpec()
    stages: tuple[Stage, ...] = Field(min_length=1, description="the stages, in order")
    evidence: EvidenceSpec = EvidenceSpec()
    confirm: Annotated[Confirm | None, BeforeValidator(lambda raw: raw or None if isinstance(raw, int) else raw)] = (
        Field(None, description="train the best settings again on fresh seeds: true, a number of seeds, or see below")
    )
    code: tuple[OwnCode, ...] = Field(
        (), description="files of the networks of your own; written by --code, which alone makes them run"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _know_own(cls, raw: Any, handler: Callable[[Any], Self]) -> Self:
        """Accept the names of networks in the user's own code."""
        with knowing(_own_models(raw.get("code")) if isinstance(raw, dict) else ()):
            return handler(raw)

    @field_validator("stages")
    @classmethod
    def _follow_the_metric(cls, stages: tuple[Stage, ...], info: ValidationInfo) -> tuple[Stage, ...]:
        """Let what does not say by what to choose go by the sweep's metric. The default needs no change."""
        name = info.data.get("metric", DEFAULT)
        return stages if name == DEFAULT else tuple(stage.following(METRICS[name].measure) for stage in stages)

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise SpecProblemError((), f"has a seed twice: {list(seeds)}")
        for seed in seeds:
            if not 0 <= seed < 2**31:
                raise SpecProblemError((), f"given {seed}; allowed: 0 to {2**31 - 1}")
        return seeds

    @model_validator(mode="after")
    def _check(self) -> Self:
        stages, _ = without_misfits(self.stages, self.data)
        found = (
            *problems(
                stages, self.replicates, self.train, self.data, self.digests_of_code, confirms=self.confirm is not None
            ),
            *unmeasured(stages, self.metric),
            *fold_problems(stages, self.seeds, self.train, self.data, confirms=self.confirm is not None),
        )
        if found:
            raise SpecProblemsError(found)
        return self

    @classmethod
    def from_document(cls, document: Document) -> Sweep:
        """Validate a sweep file. Raises SpecError, with a message for its author."""
        try:
            return cls.model_validate(document.tree)
        except ValidationError as error:
            raise SpecError(explain(error, document, cls)) from None

    @property
    def digests_of_code(self) -> dict[str, str]:
        """Network of the user's own -> digest of the code it is from."""
        return {model: one.digest for one in self.code for model in one.models}

    @property
    def folds(self) -> FoldsSplit | None:
        """How its images are dealt into folds; None where they are split once."""
        return self.data.split if isinstance(self.data.split, FoldsSplit) else None

    @property
    def replicates(self) -> tuple[int, ...]:
        """The seeds of the trials that each setting becomes.

        With folds each is trained with a seed of its own, so that the spread over folds holds the luck of the seed too:
        that of fold i is `train.seed` + i.
        """
        if self.folds is not None:
            return tuple(range(self.train.seed, self.train.seed + self.folds.count))
        return self.seeds or (self.train.seed,)

    @property
    def base(self) -> dict[str, Any]:
        """The settings of every trial of a stage that starts from no other, but for what its cell replaces."""
        return {**self.train.recipe, "image_size": self.data.image_size, "metric": self.metric}

    def settings(self, cell: Mapping[str, Any]) -> Settings:
        """The settings of a trial of a stage that starts from no other, given its values on some axes."""
        values = {**self.base, **cell}
        code = self.digests_of_code.get(values["model"])
        return Settings.model_validate({**values, "code": code} if code else values)

    def stage(self, name: str) -> Stage:
        """Return the stage of this name, which may be the one that confirms. Raises KeyError."""
        for stage in (*self.stages, *([CONFIRM] if self.confirm else [])):
            if stage.name == name:
                return stage
        raise KeyError(name)

    def with_values(self, values: dict[str, Any]) -> Sweep:
        """Return a changed sweep, given dotted keys as in `--set`, such as `{"train.epochs": 5}`. Raises SpecError."""
        plain = copy.deepcopy(self.to_dict())
        if "metric" in values:  # what followed the old one follows the new one
            for stage in plain["stages"]:
                for part, key in (("start_from", "best"), ("stop_early", "metric"), ("search", "objectives")):
                    if (found := stage.get(part, {})).get(key) in (self.measure, [self.measure]):
                        del found[key]
        document = Document(self.name, plain)
        for key, value in values.items():
            document.set(key, value, key)
        return self.from_document(document)

    def without_misfits(self, misfits: Misfits | None = None) -> tuple[Sweep, tuple[str, ...]]:
        """Return the sweep without networks on its axes that cannot take the images' size, and what each of them needs.

        What is left can be planned, where none of `misfits` is left: see `fitting.without_misfits`.
        """
        stages, needs = without_misfits(self.stages, self.data, misfits)
        return (self.model_copy(update={"stages": stages}) if needs else self), needs

    @property
    def measure(self) -> Measure:
        """The column of its metric on validation."""
        return METRICS[self.metric].measure

    @property
    def chosen_by(self) -> dict[str, str]:
        """Every metric that anything is chosen by -> the key that says so."""
        found: dict[str, str] = {self.metric: "metric"}
        for stage in self.stages:
            parts: list[tuple[str, str]] = [(stage.start_from.best, "start_from.best")] if stage.start_from else []
            parts += [(stage.stop_early.metric, "stop_early.metric")] if stage.stop_early else []
            parts += [(aim, "search.objectives") for aim in stage.search.objectives]
            for measure, key in parts:
                if measure in MEASURES:
                    found.setdefault(MEASURES[measure].name, f"stages.{stage.name}.{key}")
        return found

    @property
    def keeps_all_weights(self) -> bool:
        """Whether every trial keeps its weights: as `run.keep` asks, or to be tested once the test set is unsealed."""
        return self.run.keep != "best" or self.evidence.test == "sealed"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `sweep.yaml` holds them; `Sweep.model_validate` reads them back."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        if not self.code:
            del plain["code"]
        return plain
