"""What decides a trial's result: every hyperparameter, as frozen, validated objects."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from cnnsearch.spec.arguments import (
    ARGS,
    ARGUMENTS,
    GROUPS,
    Arguments,
    OptimizerArguments,
    group_and_name,
    optimizer_problem,
    plain_value,
    with_arguments,
)
from cnnsearch.spec.metric import DEFAULT, MetricName
from cnnsearch.spec.model_names import OWN, PUBLISHED, TIMM, is_timm, knowing, known, size_problem
from cnnsearch.spec.part import Float, Int, Part, Spelled


def _known_model(name: str) -> str:
    if name.startswith(TIMM) and not is_timm(name):
        raise ValueError("one of timm's models is timm:NAME, such as timm:convnext_atto.d2_in1k")
    if name not in known() and not is_timm(name):
        near = difflib.get_close_matches(name, known(), n=1)
        hint = f" Did you mean {near[0]}?" if near else " A network of your own: --code FILE.py"
        raise ValueError(f"it should be plain, residual, timm:NAME or a torchvision classification model.{hint}")
    return name


ModelName = Annotated[str, AfterValidator(_known_model)]
FineTune = Annotated[str, Spelled(r"full|head|last-[1-9]\d*-convs", "full, head, last-N-convs")]
Augment = Annotated[
    str, Spelled(r"none|flip|flip\+crop|rand-([1-9]|10)", "none, flip, flip+crop, rand-1 (weak) to rand-10 (strong)")
]
Precision = Literal["auto", "fp32", "bf16"]
ResolvedPrecision = Literal["fp32", "bf16"]


class Recipe(Part):
    """How a model is built and trained: set by `train:` for all stages, varied by a stage's space."""

    model: ModelName = Field(
        "residual",
        description="plain, residual, the name of a torchvision classification model, timm:NAME (one of timm's, with "
        "the extra timm), or the name of a network of your own",
    )
    model_args: Arguments = Field(
        {},
        description="arguments for a network of your own, by name: any JSON values. Each is an axis of its own: "
        "model_args.NAME",
    )
    weights: str = Field(
        "none",
        min_length=1,
        description="initial weights: none, pretrained (those published with a model of torchvision or timm), imagenet "
        "(the same, of torchvision), or a path to a file",
    )
    fine_tune: FineTune = Field(
        "full",
        description="layers that are trained: full (all), head (the last), last-N-convs (also the last N convolutions)",
    )
    width: Float = Field(1.0, gt=0, le=8, description="multiplies the number of channels of every hidden layer")
    dropout: Float = Field(0.0, ge=0, lt=1, description="probability of dropping an activation")
    lr: Float = Field(1e-3, gt=0, le=100, description="learning rate")
    batch_size: Int = Field(32, ge=1, le=65536, description="images per step")
    epochs: Int = Field(100, ge=1, le=1_000_000, description="passes over the training images")
    optimizer: Literal[
        "adam", "adamw", "sgd",
        "adadelta", "adafactor", "adagrad", "adamax", "asgd", "muon", "nadam", "radam", "rmsprop", "rprop",
    ] = Field("adam", description="optimizer; muon leaves the last layer, biases and norms to adamw")  # fmt: skip
    optimizer_args: OptimizerArguments = Field(
        {},
        description="arguments of PyTorch's optimizer, by name, such as betas, eps, nesterov or alpha. Each is an axis "
        "of its own: optimizer_args.NAME",
    )
    weight_decay: Float = Field(0.0, ge=0, le=100, description="L2 penalty (adam, sgd) or decoupled decay (adamw)")
    momentum: Float = Field(0.9, ge=0, lt=1, description="momentum of sgd; the other optimizers ignore it")
    head_lr_factor: Float = Field(1.0, gt=0, le=1000, description="multiplies the learning rate of the last layer")
    grad_clip: Float = Field(
        0.0, ge=0, le=1e6, description="largest norm of a step's gradient, over all weights; 0: it is not clipped"
    )
    ema: Float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of a moving average of the weights, which is evaluated and kept in their place; 0: none",
    )
    lr_schedule: Literal["constant", "cosine", "one-cycle"] = Field(
        "constant", description="how the learning rate changes over the steps; one-cycle includes a warm-up"
    )
    warmup_epochs: Float = Field(
        0.0, ge=0, le=1000, description="epochs during which the learning rate rises from 0 to lr"
    )
    label_smoothing: Float = Field(
        0.0, ge=0, lt=1, description="fraction of each training label that is spread over all classes"
    )
    augment: Augment = Field(
        "none",
        description="random changes to training images: none, flip, flip+crop, rand-1 (weak) to rand-10 (strong)",
    )
    erasing: Float = Field(0.0, ge=0, le=1, description="probability of erasing a rectangle of a training image")
    mixup: Float = Field(0.0, ge=0, le=100, description="alpha of mixup, which adds two training images; 0: none")
    cutmix: Float = Field(
        0.0, ge=0, le=100, description="alpha of cutmix, which puts a part of one training image into another; 0: none"
    )
    loss: Literal["cross_entropy", "focal", "bce"] = Field(
        "cross_entropy", description="what training minimises; bce: each class against all others"
    )
    focal_gamma: Float = Field(
        2.0, ge=0, le=20, description="how much less easy images count in the focal loss; the other losses ignore it"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: every class counts the same in the training loss, however many images it has"
    )
    precision: Precision = Field("auto", description="auto uses bf16 where a probe finds it faster")
    seed: Int = Field(0, ge=0, lt=2**31, description="seed of initial weights, data order, dropout and augmentation")

    @model_validator(mode="before")
    @classmethod
    def _gather_arguments(cls, raw: Any) -> Any:
        """Turn `model_args.depth: 2` into an item of `model_args`, and likewise for the other groups of arguments."""
        if not isinstance(raw, dict) or not any(isinstance(key, str) and key.startswith(ARGS) for key in raw):
            return raw
        return with_arguments(raw)

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Leave out what there is none of: trials recorded before there was any lack it too."""
        plain = handler(self)
        for name in (*GROUPS, "code"):
            if not plain.get(name, True):
                del plain[name]
        return plain


class TrainSpec(Recipe):
    """The recipe, and the limit on training time, which is not part of the recipe."""

    max_seconds: Float | None = Field(
        None,
        gt=0,
        description="limit on the training time of a trial, in seconds; a trial that reaches it is pruned. Not an axis",
    )

    @property
    def recipe(self) -> dict[str, Any]:
        """The hyperparameters alone."""
        return self.model_dump(exclude={"max_seconds"})


FUSED = ("adam", "adamw", "sgd")
"""Optimizers that are computed by fused kernels, for one network or for many heads at once."""

ADDED = (
    "lr_schedule", "warmup_epochs", "label_smoothing", "augment", "class_weights", "head_lr_factor", "grad_clip", "ema",
    "erasing", "mixup", "cutmix", "loss", "focal_gamma",
)  # fmt: skip
"""Hyperparameters added after the first trials were recorded. At their defaults they change no step of training."""


class Settings(Recipe):
    """Every resolved hyperparameter of one trial."""

    image_size: Int = Field(64, ge=8, le=1024, description="side length of the square images, in pixels")
    metric: MetricName = Field(DEFAULT, description="what decides which epoch is the best; not an axis")
    code: str = Field("", pattern=r"^([0-9a-f]{16})?$", description="digest of the user's own code; empty without any")

    @model_validator(mode="wrap")
    @classmethod
    def _know_own(cls, raw: Any, handler: Callable[[Any], Self]) -> Self:
        """Accept any name of a model together with the digest of the code it is from."""
        if not isinstance(raw, dict) or not raw.get("code"):
            return handler(raw)
        with knowing([str(raw.get("model"))]):
            return handler(raw)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.model_args and not self.code:
            name = next(iter(self.model_args))
            raise ValueError(f"model_args.{name} with model {self.model}: only networks of your own take arguments")
        if self.model not in OWN and not self.code and self.width != 1.0:
            raise ValueError(f"width {self.width:g} with model {self.model}: only {' and '.join(OWN)} have a width")
        if (self.model in OWN or self.code) and self.weights in PUBLISHED:
            whose = "torchvision's models" if self.weights == "imagenet" else "models of torchvision and timm"
            raise ValueError(f"weights {self.weights} with model {self.model}: only {whose} have them")
        if is_timm(self.model) and self.weights == "imagenet":
            raise ValueError(
                f"weights imagenet with model {self.model}: only torchvision's models have them; allowed: none, "
                "pretrained, a path to a file"
            )
        if problem := size_problem(self.model, self.image_size):
            raise ValueError(problem)
        if self.lr_schedule == "one-cycle" and self.warmup_epochs:
            raise ValueError("warmup_epochs with lr_schedule one-cycle: it has a warm-up of its own")
        if problem := optimizer_problem(self.optimizer, self.optimizer_args):
            raise ValueError(problem)
        is_nesterov = self.optimizer == "sgd" and self.optimizer_args.get("nesterov")
        if is_nesterov and (not self.momentum or self.optimizer_args.get("dampening")):
            raise ValueError("optimizer_args.nesterov with optimizer sgd: it takes momentum, and no dampening")
        if self.optimizer == "rprop" and self.weight_decay:
            raise ValueError("weight_decay with optimizer rprop: it has none")
        if self.head_lr_factor != 1.0 and self.fine_tune == "head":
            raise ValueError("head_lr_factor with fine_tune head: no other layer is trained, so lr alone says it")
        return self

    def deciding(self) -> dict[str, Any]:
        """Return the settings that can change the result; a setting without effect is left out, so that it makes no new
        trial.

        Pretrained weights are identified by their contents, which the trial adds.
        """
        settings = self.model_dump(exclude={"weights"})
        if self.optimizer != "sgd":
            del settings["momentum"]
        if self.loss != "focal":
            del settings["focal_gamma"]
        if self.metric == DEFAULT:
            del settings["metric"]
        # Added after the first trials were recorded: a default must not rename them.
        for name, ordinary in ORDINARY.items():
            if name in settings and settings[name] == ordinary:
                del settings[name]
        return settings

    def value(self, axis: str) -> Any:
        """The value on an axis, as something that can be compared and hashed: lists and objects as JSON."""
        if not axis.startswith(ARGS):
            return getattr(self, axis)
        group, name = group_and_name(axis)
        return plain_value(getattr(self, group).get(name))

    def flat(self) -> dict[str, Any]:
        """All settings, each argument as `model_args.NAME` or `optimizer_args.NAME`, as `value` gives them."""
        plain = self.model_dump(exclude=set(GROUPS))
        args = {f"{group}.{name}": value for group in GROUPS for name, value in getattr(self, group).items()}
        return plain | {axis: plain_value(value) for axis, value in args.items()}

    def changed(self, cell: Mapping[str, Any]) -> Self:
        """The settings with other values on some axes. They are not checked again."""
        before = {group: found for group in GROUPS if (found := getattr(self, group))}
        update = with_arguments({**before, **cell})
        return self.model_copy(update=update)

    @property
    def network(self) -> str:
        """A hash of what makes a network of the user's own another one; empty for other models."""
        if not self.code:
            return ""
        facts = json.dumps([self.code, self.dropout, self.model_args], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    @property
    def has_ordinary_steps(self) -> bool:
        """Whether all of `ADDED` have their defaults.

        Then the learning rate is constant, and the loss is the plain mean of cross-entropy over unchanged images.
        """
        return all(getattr(self, name) == ordinary for name, ordinary in ORDINARY.items())

    @property
    def changes_images(self) -> bool:
        """Whether a training image looks different in every epoch."""
        return self.augment != "none" or bool(self.erasing or self.mixup or self.cutmix)

    @property
    def fits_in_company(self) -> bool:
        """Whether it trains only a head in ordinary steps: many such trials can be trained together."""
        return self.fine_tune == "head" and self.has_ordinary_steps and self.has_fused_steps

    @property
    def has_fused_steps(self) -> bool:
        """Whether its optimizer is one of `FUSED`, with PyTorch's defaults for its arguments."""
        return self.optimizer in FUSED and not self.optimizer_args


ORDINARY: dict[str, Any] = {name: Settings.model_fields[name].default for name in ADDED}
"""The defaults of `ADDED`, kept here because they are asked for at every epoch of every trial and pydantic is slow to
say."""

AXES: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(cast(Any, Annotated[field.annotation, field]))
    for name, field in Settings.model_fields.items()
    if name not in (*GROUPS, "code", "metric")
}
"""Everything a stage's space may vary -> the values allowed; and the arguments of networks: see `axis_problem`."""


def is_axis(name: str) -> bool:
    """Whether a stage's space may vary it."""
    return name in AXES or name.startswith(ARGS)


def axis_problem(axis: str, value: Any) -> str | None:
    """Say why an axis cannot have a value; None where it can."""
    kind, found = AXES.get(axis), value
    if kind is None:
        group, name = group_and_name(axis)
        kind, found = ARGUMENTS[group], {name: value}
    try:
        kind.validate_python(found)
    except ValidationError as error:
        return str(error.errors()[0]["msg"])
    return None
