"""How the numbers were made and what they mean: the report's last section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml

from cnnsearch.evidence.comparisons import LEAST_PAIRS, LEAST_SEEDS
from cnnsearch.evidence.contrasts import Contrast
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.part import Part
from cnnsearch.scores import BINS
from cnnsearch.spec.metric import DEFAULT, METRICS
from cnnsearch.words import counted, duration, listed, share, size


@dataclass(frozen=True)
class Run:
    """One run of the sweep's command."""

    command: str
    started: str
    took: str


@dataclass(frozen=True)
class Method:
    """What is needed to understand and to repeat the sweep."""

    notes: tuple[tuple[str, str], ...]
    """(heading, some sentences)."""
    facts: tuple[tuple[str, str], ...]
    """(name, value): versions, hardware, fingerprint."""
    runs: tuple[Run, ...]
    sweep: str
    """The resolved sweep, YAML."""


def method(evidence: Evidence) -> Method:
    """Describe the sweep from its provenance; what was not recorded is left out."""
    sweep = yaml.safe_dump(
        evidence.tables.sweep.to_dict(), sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
    runs = [_run(run) for run in evidence.runs]
    return Method(tuple(_notes(evidence)), tuple(_facts(evidence)), tuple(runs), sweep)


def seeds_note(evidence: Evidence) -> str:
    """Say what the seeds show; empty if nothing finished."""
    seeds = sorted({seed for c in evidence.contenders for seed in c.seeds})
    if not seeds:
        return ""
    if len(seeds) == 1:
        return (
            f"Each setting was trained once (seed {seeds[0]}). Its interval says how much the number could change with "
            f"other {evidence.judged} images, but not with another seed. So single settings are not compared, and the "
            f"values of an axis only over {LEAST_PAIRS} or more matched pairs of settings."
        )
    if evidence.folds:
        split = evidence.tables.sweep.folds
        assert split is not None
        times = "" if split.repeats == 1 else f", {split.repeats} times over"
        return (
            f"The images were dealt into {split.k} folds{times}. Each setting was trained once for every fold, with a "
            "seed of its own, and validated on the images of that fold; its numbers are means over the folds. The test "
            "images are in no fold."
        )
    counts = {len(c.trial_ids) for c in evidence.contenders}
    each = f"{counts.pop()}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    which = "Each contender" if evidence.is_confirmed else "Each setting"
    named = listed([str(seed) for seed in seeds])
    with_seeds = f"again with {each} fresh seeds" if evidence.is_confirmed else f"with {each} seeds"
    return f"{which} was trained {with_seeds} ({named}); its numbers are means over them."


def metrics_note(evidence: Evidence) -> str:
    """Say how the metrics of the best settings are defined, and what their intervals cover."""
    covers = (
        "Intervals are 95 % over images, resampled class by class where a metric is made of classes, and over "
        f"{evidence.unit}s, too, from {LEAST_SEEDS} {evidence.unit}s on."
    )
    if evidence.folds:
        covers = (
            "Intervals are 95 %. Those of validation are Student’s over the folds, each of which has a score; those of "
            "test are over images, resampled class by class where a metric is made of classes, and over the folds."
        )
    return (
        f"The sweep went by {METRICS[evidence.tables.sweep.metric].words}; the others chose nothing. Balanced accuracy "
        "is the mean recall over classes, macro F1 the mean F1; AUROC and average precision hold each class against "
        f"the rest. The calibration error (ECE) compares confidence and accuracy in {BINS} bins of equal width. "
        f"{covers} A number alone has no interval: the probabilities of all classes were not kept, or there are too "
        "many images, or too few of a class."
    )


def _random(evidence: Evidence) -> str:
    """Write what an interval covers."""
    if evidence.folds:
        return (
            "A score would be another with other images to train and validate on, and with other seeds (initial "
            "weights, data order, augmentation). The spread over the folds holds both. Folds train on almost the same "
            "images, so the variance of a mean over J folds is not s²/J but (1/J + 1/(k − 1)) s² (Nadeau and Bengio "
            f"2003), and an interval is Student’s t with J − 1 degrees of freedom, from {LEAST_SEEDS} folds on. Which "
            "images test was drawn once, and no interval covers that."
        )
    return (
        "A score would be another with other seeds (initial weights, data order, augmentation) and with other "
        f"images. From {LEAST_SEEDS} seeds on an interval covers both (crossed effects, Satterthwaite’s degrees "
        f"of freedom); with fewer it covers the images alone ({_intervals(evidence)}). Which images train, "
        "validate and test was drawn once, and no interval covers that."
    )


def _comparisons(evidence: Evidence) -> str:
    """Write how settings are compared."""
    if evidence.folds:
        return (
            "Two settings are compared fold by fold, on the same images and with the same seeds; two values of an axis "
            f"over the settings that differ in it alone, and from {LEAST_PAIRS} such pairs on never surer than over "
            "the pairs. Validation also chose each network’s best epoch, which favours all settings alike."
        )
    return (
        f"Two settings are compared over their seeds and the {evidence.judged} images, from {LEAST_SEEDS} seeds "
        f"each; two values of an axis over the settings that differ in it alone, from {LEAST_PAIRS} such pairs "
        "(Student’s t over pairs, images crossed). With fewer of either the report says only how these networks "
        "compare. What training on changed is a statement about the same networks, by McNemar’s exact test."
    )


def _notes(evidence: Evidence) -> list[tuple[str, str]]:
    """Write what was random, what was corrected and what was not."""
    chosen = counted(len(evidence.contenders), "setting")
    best = "highest" if METRICS[evidence.tables.sweep.metric].is_larger_better else "lowest"
    if evidence.is_confirmed:
        selection = (
            "The best settings by validation were trained again on fresh seeds, and the best of these by mean "
            f"{evidence.chosen_by} is the answer: all that is said of it comes from the fresh seeds alone."
        )
    else:
        selection = (
            f"The best setting has the {best} mean {evidence.chosen_by}, each network taken at its epoch of {best} "
            f"{evidence.chosen_by}."
        )
        if evidence.contenders:
            selection += (
                f" Its validation score, the {best} of {chosen}, is optimistic for that reason; so is its test score "
                "as a score of the setting, because its networks were picked for their luck as well."
            )
    return [
        (
            "Selection",
            f"{selection} Trials that diverged or failed take no part, and test images choose nothing."
            f"{_sealed(evidence)}",
        ),
        ("What was random", _random(evidence)),
        ("Comparisons", _comparisons(evidence)),
        (
            "What was corrected",
            "Holm’s correction covers every comparison that the report states or draws, the pairs from which a leader "
            "was picked included: of reports on settings that do not differ, at most 5 % call any difference clear. "
            "“Suggestive” is not corrected: its own interval leaves out zero.",
        ),
        (
            "Clear, suggestive, cannot tell",
            "Clear: significant after the correction; for what is not tested, such as overfitting, seen in at least "
            "four of five cases. Suggestive: possible, not established. Cannot tell: neither, or nothing was repeated.",
        ),
        (
            "Where validation loss rises",
            "Validation loss starts to rise at its smoothed minimum if the last fifth of the epochs, at least three, "
            "lies above that by more than 5 % and by more than noise does in 199 of 200 simulated curves that do not "
            "rise, even where four fifths of it carry over from epoch to epoch. Rises are not reported where noise "
            "alone would make as many of this number of curves rise (5 %).",
        ),
        (
            "Chance",
            f"Chance is what always naming the most frequent class of the {evidence.judged} images scores, here "
            f"{share(evidence.chance)}. Better than chance means significantly so at 5 %, one-sided, after Holm’s "
            "correction over all settings: by an exact binomial test or, where the largest class has more than 1.5 "
            "times its even share, by a normal test of the mean recall over classes against one over their number.",
        ),
    ]


def _sealed(evidence: Evidence) -> str:
    """Say what a sealed test set means for the comparisons, and since when it is open."""
    if evidence.tables.is_sealed:
        return (
            " The test set is sealed: no test image has been looked at for this report, and settings are compared on "
            "the validation images, which chose each network’s epoch, too. These comparisons are a guide to what to "
            "try, not yet a result."
        )
    at = evidence.tables.unsealed.get("at")
    return f" The test set was sealed until {date_of(at)}." if isinstance(at, str) else ""


def comparison_notes(parts: Sequence[Part], found: Sequence[Contrast]) -> tuple[tuple[str, str], ...]:
    """Say how a comparison of several sweeps selects, tests and measures time."""
    unpaired = any(not contrast.is_paired for contrast in found)
    paired = any(contrast.is_paired for contrast in found)
    tests = []
    if paired:
        tests.append(
            "Sweeps tested on the same images (same names and classes) are compared image by image, over seeds and "
            f"images, from {LEAST_SEEDS} seeds of each best setting. With fewer, only their networks are compared."
        )
    if unpaired:
        tests.append(
            "Sweeps tested on different images are compared as independent samples. Such a comparison is suggestive at "
            "most, since one set of images may be easier."
        )
    if len(found) > 1:
        tests.append("Holm’s correction covers all pairs of sweeps, because the one ahead was found by looking.")
    return (
        (
            "Selection",
            "Each sweep stands with its best setting by validation accuracy; test images chose nothing within a sweep. "
            "Which sweep is ahead, and which settings none beats, is read off the test images.",
        ),
        *([("Tests", " ".join(tests))] if tests else []),
        (
            "Time",
            "Training time is that of a trial’s epochs, their validation included. Reading images and the outputs of "
            "frozen layers, computed once for all trials, are not in it; networks trained together share their time "
            "equally. It was measured once, beside whatever else ran: a difference in time is clear from twice as long "
            "on one machine, and not clear below 1.2 times.",
        ),
        (
            "Clear, suggestive, cannot tell",
            "Clear: significant at 5 % after the correction, over seeds and images. Suggestive: the interval leaves "
            "out zero but the correction takes significance away, or the test images differ, or the setting was found "
            "by its test accuracy. Cannot tell: neither, or too few seeds.",
        ),
        (
            "Chance",
            "Chance is what always naming the most frequent class of the test images scores: "
            f"{listed([f'{share(part.evidence.chance)} in {part.name}' for part in parts if part.best is not None])}.",
        ),
    )


def _intervals(evidence: Evidence) -> str:
    """How intervals over images alone are made."""
    if evidence.metric.name == DEFAULT:
        return "Wilson"
    by = ", class by class" if evidence.metric.by_class else ""
    return f"{evidence.metric.words} has no formula for that: the images are resampled{by}, the same for all networks"


def _run(run: Mapping[str, Any]) -> Run:
    seconds = run.get("seconds")
    return Run(
        str(run.get("command") or ""),
        date_of(run.get("started_at")),
        duration(float(seconds)) if isinstance(seconds, int | float) else "",
    )


def date_of(moment: Any) -> str:
    """Turn an ISO time into "1 March 2025, 10:00 UTC"; other text is returned unchanged."""
    if not isinstance(moment, str):
        return ""
    try:
        time = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    zone = f" {time.tzname()}" if time.tzname() else ""
    return f"{time.day} {time:%B %Y, %H:%M}{zone}"


def hardware(run: Mapping[str, Any]) -> str:
    """Processor, cores and GPUs in one line; empty where not recorded."""
    known = run.get("hardware") or {}
    gpus = [str(gpu) for gpu in known.get("gpus") or []]
    parts = [_counted_names(gpus)] if gpus else []
    if known.get("cpu"):
        parts.append(str(known["cpu"]))
    if isinstance(known.get("cores"), int):
        parts.append(counted(known["cores"], "core"))
    return ", ".join(parts)


def _counted_names(names: list[str]) -> str:
    kinds = list(dict.fromkeys(names))
    return listed([f"{names.count(kind)} × {kind}" if names.count(kind) > 1 else kind for kind in kinds])


def _facts(evidence: Evidence) -> list[tuple[str, str]]:
    provenance, runs = evidence.tables.provenance, evidence.runs
    last = runs[-1] if runs else {}
    facts = [(str(name), str(version)) for name, version in (last.get("versions") or {}).items() if version]
    if last.get("git_commit"):
        facts.append(("git commit", str(last["git_commit"])))
    if len({str(run.get("versions")) for run in runs}) > 1:
        facts.append(("note", "the runs used different versions; these are the last one’s"))
    machine, memory = hardware(last), (last.get("hardware") or {}).get("memory_bytes")
    if machine:
        facts.append(("hardware", machine + (f", {size(memory)} memory" if isinstance(memory, int | float) else "")))
    facts += [
        (str(name).replace("_", " "), _shown(choice)) for name, choice in (provenance.get("choices") or {}).items()
    ]
    return facts


def _shown(choice: Any) -> str:
    if isinstance(choice, Mapping):
        return ", ".join(f"{name} {_shown(value)}" for name, value in choice.items())
    return ", ".join(map(_shown, choice)) if isinstance(choice, list | tuple) else str(choice)
