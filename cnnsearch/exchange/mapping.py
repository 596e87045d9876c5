"""Which column of another tool's table is what: by what the tool says, by its name, or as `--map` says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from cnnsearch.errors import RequestError
from cnnsearch.exchange.foreign import STATUS, TRIAL, Foreign, ForeignTrial, Raw, Roles, State
from cnnsearch.spec.axis_words import Value
from cnnsearch.spec.explain import did_you_mean
from cnnsearch.words import LISTED, listed, printable

MOST_WORDS = 20
"""Most different words of a column of which over half are different: beyond that, they name the trials."""
ROLES = ("score", "test", "better", "seed", "stage", "axes", "study")
"""What `--map` may name."""
SEEDS = ("seed", "random_seed", "random_state", "rng_seed", "manual_seed", "global_seed")
STAGES = ("stage", "phase")
_SPLITS = "val|valid|validation|dev|test|train|training|eval|best"
_MORE = "accuracy|acc|f1|auc|auroc|recall|score|map|iou|dice|reward|r2|bleu|average_precision|return"
_LESS = "loss|error|err|mse|rmse|mae|perplexity|ppl|nll|brier|ece|wer|cost"
_META = (
    "epoch|step|iteration|training_iteration|runtime|duration|timestamp|time|seconds|date|created|updated|started_at|"
    "host|hostname|pid|id|uuid|name|report|epochs_done|best_epoch|epochs_recorded|peak_memory_bytes|model_bytes|"
    "run|run_id|run_name|trial|trial_name|parameters|device|trial_id|parent_id|confirms|number|notes|tags|user|commit"
)
"""Names of columns that are remarks about a trial."""
_EDGE = r"(?:^|[_./\s-]|$)"
_OF_VAL = r"^(?:val|valid|validation|dev)[_./\s-]"
_BEST_NAMES = (
    rf"^best[_./\s-](?:val|valid|validation|dev)[_./\s-](?:{_MORE})$",
    rf"{_OF_VAL}(?:{_MORE})$",
    r"^(?:objective|value|score|metric)$",
    rf"^(?:{_MORE})$",
    rf"{_OF_VAL}.*(?:{_MORE})$",
    rf"^eval[_./\s-].*(?:{_MORE})$",
    rf"{_OF_VAL}.*(?:{_LESS})$",
    rf"^best[_./\s-].*(?:{_MORE}|{_LESS})$",
    rf"^test[_./\s-].*(?:{_MORE}|{_LESS})$",
    rf"^(?:{_LESS})$",
)
"""Patterns of the names of a score, the first one first."""


def parse_map(given: Iterable[str]) -> dict[str, str]:
    """Parse `score=val_acc` and the like. Raises RequestError."""
    found: dict[str, str] = {}
    for pair in given:
        role, equals, column = pair.partition("=")
        if not equals or not column or role not in ROLES:
            raise RequestError(
                f"--map {printable(pair)}: allowed are score=COLUMN, test=COLUMN, better=more or less, seed=COLUMN, "
                f"stage=COLUMN, axes=COLUMN,COLUMN and study=NAME.{did_you_mean(role, ROLES)}"
            )
        if role in found:
            raise RequestError(f"--map {role} is given twice")
        found[role] = column
    if found.get("better", "more") not in ("more", "less"):
        raise RequestError(f"--map better={printable(found['better'])}: allowed are more and less")
    return found


def mapped(raw: Raw, given: Mapping[str, str]) -> Foreign:
    """Say what each column is. Raises RequestError where none is a score, or `--map` names one that is not there."""
    frame = raw.frame
    for role in ("score", "test", "seed", "stage"):
        if role in given:
            _known(given[role], frame, role)
    score = given.get("score") or _score(raw)
    judged = given.get("test") or _of_test(score, frame) or score
    for column in {score, judged}:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            raise RequestError(
                f"{raw.source}: the score, {printable(column)}, holds words; give another: --map score=COLUMN"
            )
    better = given["better"] == "more" if "better" in given else _is_larger_better(raw, score)
    seed = given.get("seed") or _named(frame, SEEDS)
    stage = given.get("stage") or raw.stage or _named(frame, STAGES)
    taken = {score, judged, seed, stage, TRIAL, STATUS, *raw.scores}
    columns = [str(column) for column in frame.columns if column not in taken]
    if "axes" in given:
        settings = [_known(axis.strip(), frame, "axes") for axis in given["axes"].split(",") if axis.strip()]
    elif raw.params is not None:
        settings = [column for column in columns if column in {*raw.params}]
    else:
        settings = [column for column in columns if _is_setting(frame[column], column)]
    values = {column: [_value(value) for value in frame[column].tolist()] for column in settings}
    axes = [column for column in settings if len(set(values[column])) > 1]
    roles = Roles(
        score=score,
        judged=judged,
        is_larger_better=better,
        seed=seed,
        stage=stage,
        axes=tuple(axes),
        fixed={column: values[column][0] for column in settings if column not in axes and len(frame)},
        left_out=tuple(column for column in columns if column not in settings),
    )
    return Foreign(raw, roles, tuple(_trials(frame, roles, {axis: values[axis] for axis in axes})))


def _trials(frame: pd.DataFrame, roles: Roles, values: Mapping[str, Sequence[Value]]) -> Iterable[ForeignTrial]:
    ids, states = frame[TRIAL].astype(str).tolist(), frame[STATUS].tolist()
    chosen, judged = frame[roles.score].tolist(), frame[roles.judged].tolist()
    seeds = frame[roles.seed].tolist() if roles.seed else [None] * len(frame)
    stages = frame[roles.stage].tolist() if roles.stage else [""] * len(frame)
    for row, (id_, state) in enumerate(zip(ids, states, strict=True)):
        yield ForeignTrial(
            id=id_,
            stage="" if _value(stages[row]) is None else str(stages[row]),
            values={axis: of_axis[row] for axis, of_axis in values.items()},
            seed=_value(seeds[row]),
            state=State(state),
            chosen_by=_number(chosen[row]),
            judged_by=_number(judged[row]),
        )


def _known(column: str, frame: pd.DataFrame, role: str) -> str:
    names = [str(name) for name in frame.columns]
    if column not in names:
        raise RequestError(
            f"--map {role}={printable(column)}: there is no such column.{did_you_mean(column, names)}\n"
            f"columns: {_shown(names)}"
        )
    return column


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4 * LISTED} more" if len(names) > 4 * LISTED else ""
    return ", ".join(map(printable, names[: 4 * LISTED])) + more


def _named(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The column of one of these names, whatever its case and whatever stands before its last dot or slash."""
    by_name = {re.split(r"[./]", str(column).lower())[-1].replace(" ", "_"): str(column) for column in frame.columns}
    return next((by_name[name] for name in names if name in by_name), None)


def _score(raw: Raw) -> str:
    """The column by which settings are chosen. Raises RequestError where none looks like it."""
    if raw.scores:
        return next(iter(raw.scores))
    params = {*(raw.params or ())}
    names = [
        str(column)
        for column in raw.frame.columns
        if column not in (TRIAL, STATUS) and column not in params and _is_number(raw.frame[column])
    ]
    for pattern in _BEST_NAMES:
        for name in names:
            if re.search(pattern, name.lower()):
                return name
    raise RequestError(
        f"{raw.source}: no column looks like a score; say which is: --map score=COLUMN\n"
        f"columns: {_shown(names) or 'none'}"
    )


def _of_test(score: str, frame: pd.DataFrame) -> str | None:
    """The column of the same score on the test set."""
    wanted = re.sub(r"^(best[./])?(?:val|valid|validation|dev)(?=[_./\s-])", r"\1test", score, flags=re.IGNORECASE)
    return wanted if wanted != score and wanted in frame.columns and frame[wanted].notna().any() else None


def _is_larger_better(raw: Raw, score: str) -> bool:
    """Whether more of a score is better, as the tool or its name says. Raises RequestError where neither does."""
    told = raw.scores.get(score)
    if told is not None:
        return told
    name = score.lower()
    for pattern, answer in ((_LESS, False), (_MORE, True)):
        if re.search(rf"{_EDGE}(?:{pattern})(?:\d*){_EDGE}", name):
            return answer
    raise RequestError(f"{raw.source}: say whether more of {printable(score)} is better: --map better=more, or less")


def _is_setting(column: pd.Series[Any], name: str) -> bool:
    """Whether a column of a table of which nobody says it may be a setting: neither a score nor a remark."""
    plain = re.sub(r"[\s-]", "_", name.lower())
    if plain.startswith("_") or re.fullmatch(rf"(?:.*[./])?(?:{_META})", plain):
        return False
    if _is_number(column):
        is_score = re.search(rf"{_EDGE}(?:{_MORE}|{_LESS}){_EDGE}", plain)
        return not is_score and not re.match(rf"^(?:{_SPLITS})[_./]", plain)
    known = column.dropna()
    different = known.astype(str).nunique()
    return not (len(known) > 1 and (different == len(known) or (different > MOST_WORDS and 2 * different > len(known))))


def _is_number(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _value(value: Any) -> Value:
    """A cell as a value of an axis; None where it is empty."""
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if isinstance(value, str | int | float | bool) else str(value)


def _number(value: Any) -> float | None:
    found = _value(value)
    is_finite = isinstance(found, int | float) and abs(found) != float("inf")
    return float(found) if is_finite and found is not None else None


def in_words(roles: Roles) -> str:
    """What was taken for what, in a sentence."""
    found = [
        f"settings are {listed(list(map(printable, roles.axes))) or 'none'}",
        f"the score is {printable(roles.score)}",
    ]
    if roles.judged != roles.score:
        found.append(f"settings are compared by {printable(roles.judged)}")
    found.append(f"the seed is {printable(roles.seed)}" if roles.seed else "no column is a seed")
    return listed(found)
