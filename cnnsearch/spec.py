"""A sweep as frozen, validated objects. Everything downstream receives these; nothing reads the YAML again."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    model_serializer,
    model_validator,
)

from cnnsearch.document import KeyPath
from cnnsearch.models.names import KNOWN, OWN, PATCH_SIZES

MAX_TRIALS = 1_000_000
"""Of one stage."""
AT_ONCE = 8
"""Suggestions of a searcher that may be without an outcome at a time."""

Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]


def _known_model(name: str) -> str:
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"it should be plain, residual or a torchvision classification model.{hint}")
    return name


def _spelled(pattern: str, allowed: str) -> AfterValidator:
    """Words of a form, refused in terms of what is allowed."""

    def check(word: str) -> str:
        if not re.fullmatch(pattern, word):
            raise ValueError(f"allowed: {allowed}")
        return word

    return AfterValidator(check)


ModelName = Annotated[str, AfterValidator(_known_model)]
FineTune = Annotated[str, _spelled(r"full|head|last-[1-9]\d*-convs", "full, head, last-N-convs")]
Augment = Annotated[
    str, _spelled(r"none|flip|flip\+crop|rand-([1-9]|10)", "none, flip, flip+crop, rand-1 (weak) to rand-10 (strong)")
]
Precision = Literal["auto", "fp32", "bf16"]
ResolvedPrecision = Literal["fp32", "bf16"]


class Part(BaseModel):
    """Base of every part of a spec: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SpecProblemError(ValueError):
    """A value that is well-formed and still impossible, with the key path it stands at."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.path = path


class FillSplit(Part):
    """Walk the files in sorted order: fill training, then validation; the rest is test."""

    method: Literal["fill"] = "fill"
    train_per_class: Int = Field(50, ge=1, description="training images of each class")
    val_per_class: Int = Field(20, ge=1, description="validation images of each class")


class StratifiedSplit(Part):
    """Shuffle each class with a seed, then deal it out; the rest is test."""

    method: Literal["stratified"] = "stratified"
    train: Annotated[Int | Float, Field(gt=0)] = Field(0.6, description="a fraction below 1, or images a class")
    val: Annotated[Int | Float, Field(gt=0)] = Field(0.2, description="a fraction below 1, or images a class")
    seed: Int = Field(0, ge=0, description="seed of the shuffle")


Split = Annotated[FillSplit | StratifiedSplit, Field(discriminator="method")]


class DataSpec(Part):
    """Which images, at which size, split how."""

    source: str = Field("fashion-mini", description="fashion-mini, a folder, or torchvision:NAME")
    image_size: Int = Field(64, ge=8, le=1024, description="side of the square images, pixels")
    split: Split = FillSplit()
    on_bad_image: Literal["refuse", "skip"] = Field("refuse", description="what to do with unreadable images")


class Recipe(Part):
    """How a model is built and trained: what `train:` sets for all stages, and a stage's space may vary."""

    model: ModelName = Field("residual", description="plain, residual, or torchvision's name of a model")
    weights: str = Field("none", min_length=1, description="none, imagenet (torchvision's), or a file of weights")
    fine_tune: FineTune = Field("full", description="what trains: full, head, last-N-convs")
    width: Float = Field(1.0, gt=0, le=8, description="factor on the number of channels of every hidden layer")
    dropout: Float = Field(0.0, ge=0, lt=1, description="probability that an activation is dropped")
    lr: Float = Field(1e-3, gt=0, le=100, description="learning rate")
    batch_size: Int = Field(32, ge=1, le=65536, description="images a step")
    epochs: Int = Field(100, ge=1, le=1_000_000, description="passes over the training images")
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="optimizer")
    weight_decay: Float = Field(0.0, ge=0, le=100, description="L2 penalty (adam, sgd) or decoupled decay (adamw)")
    momentum: Float = Field(0.9, ge=0, lt=1, description="momentum of sgd; the others do not use it")
    lr_schedule: Literal["constant", "cosine", "one-cycle"] = Field(
        "constant", description="how lr changes over the steps; one-cycle has a warm-up of its own"
    )
    warmup_epochs: Float = Field(0.0, ge=0, le=1000, description="epochs in which the learning rate rises from 0 to lr")
    label_smoothing: Float = Field(0.0, ge=0, lt=1, description="share of a label given to all classes in training")
    augment: Augment = Field(
        "none",
        description="random changes of training images: none, flip, flip+crop, rand-1 (weak) to rand-10 (strong)",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: in training, a class counts as much as any other however many images it has"
    )
    precision: Precision = Field("auto", description="auto takes bf16 where a probe finds it faster")
    seed: Int = Field(0, ge=0, lt=2**31, description="seed of weights, data order, dropout and augmentation")


class TrainSpec(Recipe):
    """The recipe, and what bounds it without being part of it."""

    max_seconds: Float | None = Field(
        None, gt=0, description="most training time of a trial, in seconds; what takes longer is pruned. Not an axis"
    )

    @property
    def recipe(self) -> dict[str, Any]:
        """The hyperparameters alone."""
        return self.model_dump(exclude={"max_seconds"})


ADDED = ("lr_schedule", "warmup_epochs", "label_smoothing", "augment", "class_weights")
"""Hyperparameters that left every step as it was before they were there, at their defaults."""


class Settings(Recipe):
    """Every resolved hyperparameter of one trial."""

    image_size: Int = Field(64, ge=8, le=1024, description="side of the square images, pixels")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.model not in OWN and self.width != 1.0:
            raise ValueError(f"width {self.width:g} with model {self.model}: only {' and '.join(OWN)} have a width")
        if self.model in OWN and self.weights == "imagenet":
            raise ValueError(f"weights imagenet with model {self.model}: only torchvision's models have them")
        patch = PATCH_SIZES.get(self.model, 1)
        if self.image_size % patch:
            raise ValueError(f"image_size {self.image_size} with model {self.model}: it must be a multiple of {patch}")
        if self.lr_schedule == "one-cycle" and self.warmup_epochs:
            raise ValueError("warmup_epochs with lr_schedule one-cycle: it has a warm-up of its own")
        return self

    def deciding(self) -> dict[str, Any]:
        """The settings that can change the result: what has no effect is left out, so that it makes no new trial.

        Weights are known by their contents, which the trial adds.
        """
        settings = self.model_dump(exclude={"weights"})
        if self.optimizer != "sgd":
            del settings["momentum"]
        # Younger than the first trials: what changes nothing must not rename them.
        for name, ordinary in ORDINARY.items():
            if settings[name] == ordinary:
                del settings[name]
        return settings

    @property
    def has_ordinary_steps(self) -> bool:
        """Whether a step is nothing but the gradient of the mean loss of unchanged examples times one rate."""
        return all(getattr(self, name) == ordinary for name, ordinary in ORDINARY.items())

    @property
    def fits_in_company(self) -> bool:
        """Whether it trains a head and nothing else, as many others do: they can be trained as one."""
        return self.fine_tune == "head" and self.has_ordinary_steps


ORDINARY: dict[str, Any] = {name: Settings.model_fields[name].default for name in ADDED}
"""What `ADDED` are by default. Asked for at every epoch of every trial: pydantic takes its time to say."""

AXES: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(cast(Any, Annotated[field.annotation, field])) for name, field in Settings.model_fields.items()
}
"""Everything a stage's space may vary, with the values allowed."""

NUMERIC_KINDS = ("uniform", "loguniform", "int")
LISTED_KINDS = ("grid", "choice")


class Values(Part):
    """The values of one axis: a constant, listed values (`grid`, `choice`) or a range."""

    kind: Literal["constant", "grid", "choice", "uniform", "loguniform", "int"]
    args: tuple[Any, ...]
    when: dict[str, tuple[Any, ...]] = Field(
        {}, description="axis that stands before -> its values with which this axis varies; with others `train:` holds"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, raw: Any) -> Any:
        if isinstance(raw, Values):
            return {"kind": raw.kind, "args": raw.args, "when": raw.when}
        if isinstance(raw, list):
            raise ValueError(f"a list needs a kind: {{grid: {raw}}}")
        if not isinstance(raw, dict):
            return {"kind": "constant", "args": (raw,)}
        if {"kind", "args"} <= set(raw):
            return raw
        raw = dict(raw)
        when = _conditions(raw.pop("when")) if "when" in raw else {}
        kinds = (*LISTED_KINDS, *NUMERIC_KINDS)
        if len(raw) != 1 or next(iter(raw)) not in kinds:
            raise ValueError(f"given {raw!r}; allowed: a constant, or one of {', '.join(kinds)} with a list")
        kind, args = next(iter(raw.items()))
        if not isinstance(args, list) or not args:
            raise ValueError(f"{kind} needs a list of values, given {args!r}")
        if kind in LISTED_KINDS:
            if (twice := repeated(args)) is not None:
                raise ValueError(f"{kind} has {twice!r} twice")
        else:
            numbers = [value for value in args if isinstance(value, int | float) and not isinstance(value, bool)]
            if len(args) != 2 or len(numbers) != 2 or not args[0] < args[1]:
                raise ValueError(f"{kind} needs [low, high] with low < high, given {args!r}")
            if kind == "loguniform" and args[0] <= 0:
                raise ValueError(f"loguniform needs low > 0, given {args!r}")
            if kind == "int" and not all(isinstance(value, int) for value in args):
                raise ValueError(f"int needs whole numbers, given {args!r}")
        return {"kind": kind, "args": tuple(args), "when": when}

    @model_serializer
    def _to_yaml(self) -> Any:
        if self.kind == "constant":
            return self.args[0]
        conditions = {axis: list(values) for axis, values in self.when.items()}
        return {self.kind: list(self.args)} | ({"when": conditions} if conditions else {})

    @property
    def varies(self) -> bool:
        """Whether trials of one stage can differ in it."""
        return len(self.args) > 1 or bool(self.when)

    def applies(self, cell: Mapping[str, Any]) -> bool:
        """Whether the axis varies with these values of the axes before it."""
        return all(cell.get(axis) in values for axis, values in self.when.items())


def _conditions(raw: Any) -> dict[str, tuple[Any, ...]]:
    """`{model: plain}` or `{model: [plain, residual]}`."""
    if not isinstance(raw, dict) or not raw:
        raise ValueError(f"when needs axes with their values, such as {{model: plain}}, given {raw!r}")
    return {axis: tuple(values) if isinstance(values, list) else (values,) for axis, values in raw.items()}


def repeated(values: list[Any]) -> Any:
    """The first value that was there before; None where there is none, or where no axis has such values."""
    seen = set()
    for value in values:
        if not isinstance(value, Hashable):
            return None
        if value in seen:
            return value
        seen.add(value)
    return None


class StartFrom(Part):
    """Carry the weights and settings of an earlier stage's best trials into this stage."""

    stage: str = Field(description="name of an earlier stage")
    best: Literal["val_accuracy", "val_loss"] = Field("val_accuracy", description="what makes a trial best")
    per: Annotated[tuple[str, ...], BeforeValidator(lambda raw: (raw,) if isinstance(raw, str) else raw)] = Field(
        (), description="axes of that stage: the best of each of their values is taken"
    )


Objective = Literal["val_accuracy", "val_loss", "seconds", "parameters", "bytes"]
HIGHER_IS_BETTER = frozenset({"val_accuracy"})
"""Of the objectives; the others are better when lower."""
SINGLE_OBJECTIVES = ("val_accuracy", "val_loss")


FIRST_AT_RANDOM = {"tpe": 10, "gp": 10, "cmaes": 1, "nsga2": 20}
"""Suggestions that Optuna's searchers draw before they learn: its defaults, and a population of `search`."""


class Search(Part):
    """How a stage's cells are chosen from its space."""

    method: Literal["grid", "random", "tpe", "gp", "cmaes", "qmc", "nsga2"] = Field(
        "grid", description="every combination, random draws, or one of Optuna's searchers"
    )
    trials: Int | None = Field(None, ge=1, le=MAX_TRIALS, description="number of draws or suggestions; not of a grid")
    seed: Int = Field(0, ge=0, description="seed of the draws or suggestions")
    at_once: Int | None = Field(
        None,
        ge=1,
        le=1000,
        description="a suggestion knows the outcomes of all but the last so many before it, which may be running; "
        "8 where none is given (tpe, gp, cmaes, nsga2)",
    )
    objectives: tuple[Objective, ...] = Field(
        (),
        description="what to search for: val_accuracy, where none is given, or val_loss; for nsga2 two or more of "
        "val_accuracy (up), val_loss, seconds, parameters (that train), bytes (of the model) (down)",
    )

    @property
    def is_adaptive(self) -> bool:
        """Whether its cells are suggested one after another rather than known from the start."""
        return self.method not in ("grid", "random")

    @property
    def window(self) -> int:
        """Suggestions that may be without an outcome at a time; all, where outcomes change nothing."""
        if self.method == "qmc":
            return self.trials or 1
        return self.at_once or AT_ONCE

    @property
    def guided_from(self) -> int | None:
        """Place of the first suggestion that is made from outcomes; None where none is."""
        first = FIRST_AT_RANDOM.get(self.method)
        return None if first is None else first + self.window - 1

    @property
    def aims(self) -> tuple[Objective, ...]:
        """The objectives, given or not."""
        return self.objectives or ("val_accuracy",)


class _Stopping(Part):
    """What every rule has."""

    metric: Literal["val_accuracy", "val_loss"] = Field("val_accuracy", description="what trials are judged by")
    min_epochs: Int = Field(1, ge=1, description="epochs every trial has before it can be stopped")


class Asha(_Stopping):
    """Asynchronous successive halving: Li et al., arXiv:1810.05934."""

    method: Literal["asha"] = Field(
        "asha", description="stops those not among the best at epochs further and further apart"
    )
    reduction_factor: Int = Field(
        3, ge=2, le=1000, description="one in so many goes on from a rung, and the next is so many times as far"
    )


class Hyperband(_Stopping):
    """Several brackets of successive halving that differ in how early they begin: Li et al., arXiv:1603.06560."""

    method: Literal["hyperband"] = Field("hyperband", description="asha in brackets, some of which begin later")
    reduction_factor: Int = Field(
        3, ge=2, le=1000, description="one in so many goes on from a rung, and the next is so many times as far"
    )


class Median(_Stopping):
    """The median stopping rule: Golovin et al., Google Vizier, KDD 2017."""

    method: Literal["median"] = Field(
        "median", description="stops those whose best is below the others' median average"
    )


class Patience(_Stopping):
    """Stops a trial by its own curve alone."""

    method: Literal["patience"] = Field("patience", description="stops a trial that gets no better")
    patience: Int = Field(10, ge=1, description="epochs without a better value after which a trial is stopped")
    min_change: Float = Field(0.0, ge=0, description="what is no larger counts as no better (a fraction, or a loss)")


StopEarly = Annotated[Asha | Hyperband | Median | Patience, Field(discriminator="method")]


class Stage(Part):
    """Trials that can be planned together."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$", description="lower-case word")
    start_from: StartFrom | None = None
    space: dict[str, Values] = Field(description="axis -> its values; the first axis varies slowest")
    search: Search = Search()
    stop_early: StopEarly | None = Field(
        None, description="when trials are stopped before their last epoch; else never"
    )


class RunSpec(Part):
    """How the work is executed. Nothing here changes what a trial is, only how fast and where it runs."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes GPUs where there are any")
    trials_at_once: Literal["auto"] | Int = Field(
        "auto", description="auto: as many as cores, GPUs and measured memory allow"
    )
    threads_per_trial: Literal["auto"] | Int = Field("auto", description="CPU threads of a trial; auto: one")
    gpus_per_trial: Literal["auto"] | Float = Field(
        "auto",
        description="GPUs of a trial; 0.25 puts four on one; auto: as many on one as measured memory allows, up to 8",
    )
    checkpoint_seconds: Float = Field(60.0, ge=0, description="least time between checkpoints of a trial")
    checkpoint_epochs: Int | None = Field(None, ge=1, description="epochs between checkpoints, whatever the time")
    max_retries: Int = Field(2, ge=0, le=100, description="new starts of a trial whose process died or stood still")
    patience_seconds: Float = Field(
        120.0, gt=0, description="a trial silent this long, and for ten of its epochs, is taken to stand still"
    )
    keep: Literal["best", "all", "state"] = Field(
        "best",
        description="weights kept: of the best of each model and group that a stage starts from, or all; state: all, "
        "and what training needs to go on to more epochs",
    )
    dashboard: bool = Field(True, description="start the Ray dashboard (on this machine only)")

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


class Sweep(Part):
    """A question about hyperparameters, and the trials that answer it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}$", description="names the results folder")
    title: str = Field("", description="one line")
    question: str = Field("", description="what the sweep is to find out")
    data: DataSpec = DataSpec()
    train: TrainSpec = TrainSpec()
    seeds: tuple[Int, ...] = Field((), description="repeat every trial with each of these seeds")
    run: RunSpec = RunSpec()
    stages: tuple[Stage, ...] = Field(min_length=1, description="in order")

    @model_validator(mode="after")
    def _check(self) -> Self:
        from cnnsearch.spec_problems import problems

        for problem in problems(self):
            raise problem
        return self

    def stage(self, name: str) -> Stage:
        """The stage of that name; KeyError where there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def with_values(self, values: dict[str, Any]) -> Sweep:
        """A changed sweep: dotted keys as in `--set`, such as `{"train.epochs": 5}`. Raises SpecError."""
        from cnnsearch.sweepfile import changed

        return changed(self, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `sweep.yaml` holds them; `Sweep.model_validate` reads them back."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return plain


def value_message(value: Any, message: str) -> str:
    """Pydantic's words in our form: what was given, what is allowed."""
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return f"given {shown}; " + message.removeprefix("Value error, ").replace("Input should", "it should")
