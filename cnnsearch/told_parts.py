"""The parts of what `--json` prints: scores, settings, trials, predictions. See `told`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat

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
    """An accuracy, or the sweep's metric, with its 95 % interval."""

    value: FiniteFloat = Field(description="accuracy from 0 to 1, or the sweep's metric, the mean over seeds")
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
    validation: Score | None = Field(description="score on the validation images; null where it was not measured")
    test: Score | None = Field(
        description="score on the test images; null where it was not measured, or the test set is sealed"
    )


class Best(Setting):
    """The best setting by validation."""

    weights_of: str = Field(description="id of its best trial by the sweep's metric on validation")
    weights: Text | None = Field(description="path or URI of that trial's weights; null where they are not kept")


Subject = Literal["model", "search", "axis", "trouble", "stage", "overfitting", "chance", "divergence", "comparison"]


class Claim(Part):
    """One sentence of the report's findings."""

    kind: Subject = Field(
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
    difference: FiniteFloat = Field(
        description="score of a minus that of b; of a metric of which less is better, that of b minus that of a"
    )
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
    best_epoch: int | None = Field(None, description="best epoch by the sweep's metric on validation")
    validation_score: FiniteFloat | None = Field(
        None, description="the sweep's metric on the validation images at that epoch"
    )
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


class Accuracy(Part):
    """The share of right answers, with the 95 % interval that other images of the kind would give."""

    value: float = Field(description="0 to 1")
    low: float = Field(description="lower end of the interval")
    high: float = Field(description="upper end of the interval")
    images: int = Field(description="images that it is the share of")


class Candidate(Part):
    """A class that an image may be of."""

    name: Text = Field(description="name of the class")
    confidence: FiniteFloat = Field(description="its probability, 0 to 1")


class Prediction(Part):
    """The answer for one image."""

    path: Text = Field(description="as it was given, or below the folder that was given")
    predicted: Text | None = Field(description="the best class; null where the image cannot be read")
    confidence: FiniteFloat | None = Field(description="probability of that class, 0 to 1")
    label: Text | None = Field(description="its class, where a folder that it lies in is called like one")
    error: Text | None = Field(description="why it cannot be read")
    top: list[Candidate] | None = Field(None, description="with --top: the best classes")


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
    validation_score: FiniteFloat | None = Field(
        None, description="the sweep's metric on the validation images at that epoch"
    )


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


Sameness = Literal["identical", "within", "different"]


class Apart(Part):
    """How far two trainings of a trial are apart in one number: the largest difference of any epoch."""

    value: FiniteFloat = Field(description="largest difference, without its sign")
    epoch: int = Field(description="the epoch of it; 0 is before training")


class Repeated(Part):
    """The answers of two trainings of a trial on the same images."""

    split: Literal["validation", "test"] = Field(description="which images")
    images: int = Field(description="number of images")
    same: Share = Field(description="share of the images with the same prediction")
    then: Share = Field(description="accuracy that is recorded")
    now: Share = Field(description="accuracy of the training now")
    low: FiniteFloat = Field(description="lower end of the 95 % interval of now minus then, over other images")
    high: FiniteFloat = Field(description="upper end of it")
    allowed_by_seeds: FiniteFloat | None = Field(
        description="largest difference that two seeds of its setting are likely to have; null where fewer than three "
        "seeds are recorded"
    )
    is_within: bool = Field(description="whether images or seeds explain the difference")


class Condition(Part):
    """Something that may change numbers, and that differs between then and now."""

    name: Text = Field(description="what it is, such as torch or threads")
    then: Text | None = Field(description="as it is recorded; null where it is not")
    now: Text | None = Field(description="as it is now")


class Start(Part):
    """A trial that the reproduced one starts from."""

    id: str = Field(description="its id")
    how: Literal["kept weights", "trained again"] = Field(description="where its weights came from")
    verdict: Sameness | None = Field(description="of one that was trained again: how it compares with its record")


class Differing(Part):
    """Something in which two results folders differ."""

    name: Text = Field(description="the key, package or part of the machine")
    a: Text | None = Field(description="what it is in A; null where A has none")
    b: Text | None = Field(description="what it is in B; null where B has none")


class SplitOfBoth(Part):
    """The images of one split in two results folders, by name and class."""

    split: Literal["train", "validation", "test"] = Field(description="which images")
    a: int = Field(description="number of images in A")
    b: int = Field(description="number of images in B")
    both: int | None = Field(description="images of the same name and class; null where names are not recorded")


class ImagesOfBoth(Part):
    """Whether two results folders are of the same images."""

    are_same: bool = Field(description="whether contents and split are the same, by their fingerprint")
    fingerprint_a: Text | None = Field(description="of A")
    fingerprint_b: Text | None = Field(description="of B")
    judged_are_same: bool = Field(
        description="whether the images that settings are compared on have the same names and classes in both"
    )
    classes_only_a: list[Text] = Field(description="classes of A alone")
    classes_only_b: list[Text] = Field(description="classes of B alone")
    splits: list[SplitOfBoth] = Field(description="train, validation and test")


class HeldAgainst(Part):
    """How much more accurate B is than A: in one setting, or on average over all that both have."""

    difference: FiniteFloat = Field(description="accuracy of B minus that of A, from -1 to 1")
    low: FiniteFloat = Field(description="lower end of its 95 % interval")
    high: FiniteFloat = Field(description="upper end of its 95 % interval")
    verdict: Verdict = Field(description="how sure one can be of it, corrected for all comparisons of this answer")
    repeats: Literal["pairs", "seeds", "networks"] = Field(
        description="what was repeated: settings, seeds, or nothing but these networks"
    )
    paired_by: Literal["seeds and images", "images", "nothing"] = Field(
        description="what both sides share, so that its luck is taken off"
    )
    pairs: int = Field(description="settings compared")
    seeds: int = Field(description="seeds of the setting that has fewest, of those that were compared")
    same_answers: bool = Field(description="whether both are right on the same images, seed by seed")
    is_regression: bool = Field(description="whether B is worse beyond what the evidence allows")


class SettingOfBoth(Part):
    """A setting that two results folders have."""

    name: Text = Field(description="the setting in words, by the axes that vary in either")
    a: Setting = Field(description="in A")
    b: Setting = Field(description="in B")
    held: HeldAgainst | None = Field(description="B against A; null where either was not measured")


class CheckedImage(Part):
    """An image that was looked at."""

    file: Text = Field(description="its path inside the source, or its index")
    split: Literal["training", "validation", "test", "unused"] = Field(description="the split it is in")
    label: Text = Field(description="its class")


class CheckedPair(Part):
    """Two images that show the same picture."""

    kind: Literal["same file", "alike", "mirrored"] = Field(
        description="same file: byte for byte; alike: compressed again, resized or with edges cut off; mirrored: left "
        "and right exchanged"
    )
    images: list[CheckedImage] = Field(description="the two of them")


class CheckedOdd(Part):
    """An image that stands out."""

    image: CheckedImage = Field(description="which one")
    what: Literal["one colour", "size", "mode"] = Field(description="in what")
    why: Text = Field(description="in words, to follow its name")
