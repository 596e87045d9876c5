"""Writes trials as event files of TensorBoard: a run for each trial, with its curves and its place among the
hyperparameters. Which of it is there already, the event files themselves say."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import ListValue, Value as PlainValue
from tensorboardX import FileWriter
from tensorboardX.proto.api_pb2 import DataType, Experiment, HParamInfo, Interval, MetricInfo, MetricName, Status
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.summary import scalar, text

from cnnsearch.errors import RequestError
from cnnsearch.exchange.going import OF_AN_EPOCH, Going, GoingSweep
from cnnsearch.exchange.writing import Written
from cnnsearch.spec.values import NUMERIC_KINDS, Values
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.reading import opened
from cnnsearch.words import printable

EVENTS = "events.out.tfevents."
TAGS = {name: "/".join(reversed(name.split("_", 1))) if "_" in name else name for name in OF_AN_EPOCH}
"""Column of an epoch -> tag, such as loss/val, so that training and validation share a chart."""
BEST = "best/"
"""What the tags of a trial's final scores begin with."""
_START, _END, _EXPERIMENT = (f"_hparams_/{name}" for name in ("session_start_info", "session_end_info", "experiment"))
_MOST_RECORD = 2**24
"""Most bytes of one event that is read back."""


@dataclass
class _Known:
    """What the event files of a run hold already."""

    files: int = 0
    is_begun: bool = False
    ended_as: set[str] = field(default_factory=set)
    """Each way to end that was written."""
    epochs: set[int] = field(default_factory=set)


def write(sweep: GoingSweep, place: str) -> Written:
    """Write what is new into DIR/SWEEP/STAGE/TRIAL. Raises RequestError where that cannot be written."""
    root = typed_path(place)
    counts = {"added": 0, "updated": 0, "same": 0, "epochs": 0}
    try:
        for trial in sweep.trials:
            folder = root / sweep.sweep.name / trial.stage / trial.id
            known = _known(folder)
            epochs = [row for row in trial.epochs if row["epoch"] not in known.epochs]
            ends = trial.has_ended and trial.status not in known.ended_as
            if known.is_begun and not epochs and not ends:
                counts["same"] += 1
                continue
            counts["updated" if known.is_begun else "added"] += 1
            counts["epochs"] += len(epochs)
            folder.mkdir(parents=True, exist_ok=True)
            with closing(FileWriter(str(folder), filename_suffix=f".{known.files}")) as out:
                if not known.is_begun:
                    _begin(out, sweep, trial)
                _write_epochs(out, trial, epochs)
                if ends:
                    _end(out, trial)
    except OSError as error:
        raise RequestError(
            f"--to tensorboard:{printable(place)} cannot be written: {error.strerror or error}"
        ) from None
    return Written(f"tensorboard:{place}", **counts)


def _begin(out: Any, sweep: GoingSweep, trial: Going) -> None:
    """Write what a run is: its hyperparameters, what may be compared, and where its report is."""
    space, start = sweep.space(trial.stage), SessionStartInfo(group_name=trial.id)
    named: dict[str, Any] = {"stage": trial.stage, "seed": trial.settings.get("seed"), **trial.params}
    for name, value in named.items():
        if value is not None:
            start.hparams[name].CopyFrom(_plain(value))
    if trial.started_at:
        start.start_time_secs = trial.started_at.timestamp()
    kinds = [HParamInfo(name="stage", type=DataType.Value("DATA_TYPE_STRING"))]
    kinds += [HParamInfo(name="seed", type=DataType.Value("DATA_TYPE_FLOAT64"))]
    kinds += [_described(axis, values) for axis, values in space.items()]
    aims = [MetricInfo(name=MetricName(tag=f"{BEST}{aim}")) for aim in sweep.objectives(trial.stage)]
    out.add_summary(_of_plugin(_EXPERIMENT, experiment=Experiment(hparam_infos=kinds, metric_infos=aims)))
    out.add_summary(_of_plugin(_START, session_start_info=start))
    settings = "\n".join(f"| {axis} | {value} |" for axis, value in trial.settings.items())
    out.add_summary(text("trial", f"report: {sweep.report}\n\n| setting | |\n|---|---|\n{settings}"))


def _write_epochs(out: Any, trial: Going, epochs: list[Mapping[str, float]]) -> None:
    seconds = {row["epoch"]: row.get("seconds", 0.0) for row in trial.epochs}
    for row in epochs:
        at = None
        if trial.started_at:
            at = trial.started_at.timestamp() + sum(spent for epoch, spent in seconds.items() if epoch <= row["epoch"])
        for name, tag in TAGS.items():
            if name in row:
                out.add_summary(scalar(tag, row[name]), int(row["epoch"]), at)


def _end(out: Any, trial: Going) -> None:
    """Write how a trial ended and what it came to."""
    step = int(trial.facts.get("best_epoch", 0))
    for name, value in {**trial.scores, **_costs(trial)}.items():
        out.add_summary(scalar(f"{BEST}{name}", value), step)
    if error := trial.facts.get("error"):
        out.add_summary(text("error", str(error)))
    is_well = trial.status in ("done", "pruned")
    end = SessionEndInfo(status=Status.Value("STATUS_SUCCESS" if is_well else "STATUS_FAILURE"))
    if trial.started_at and trial.seconds is not None:
        end.end_time_secs = trial.started_at.timestamp() + trial.seconds
    out.add_summary(_of_plugin(_END, session_end_info=end))
    out.add_summary(text("status", trial.status))  # comes last: by it the end counts as written


def _costs(trial: Going) -> dict[str, float]:
    costs = {"seconds": trial.seconds, **{name: trial.facts.get(name) for name in ("parameters", "model_bytes")}}
    return {name: float(value) for name, value in costs.items() if value is not None}


def _plain(value: Any) -> PlainValue:
    if isinstance(value, bool):
        return PlainValue(bool_value=value)
    return PlainValue(number_value=value) if isinstance(value, int | float) else PlainValue(string_value=str(value))


def _described(axis: str, values: Values) -> HParamInfo:
    """An axis with the values it may take."""
    if values.kind in NUMERIC_KINDS:
        interval = Interval(min_value=values.args[0], max_value=values.args[1])
        return HParamInfo(name=axis, type=DataType.Value("DATA_TYPE_FLOAT64"), domain_interval=interval)
    kinds = {bool: "DATA_TYPE_BOOL", int: "DATA_TYPE_FLOAT64", float: "DATA_TYPE_FLOAT64"}
    named = {kinds.get(type(value), "DATA_TYPE_STRING") for value in values.args}
    kind = named.pop() if len(named) == 1 else "DATA_TYPE_STRING"
    listed = ListValue(values=[_plain(value if kind != "DATA_TYPE_STRING" else str(value)) for value in values.args])
    return HParamInfo(name=axis, type=DataType.Value(kind), domain_discrete=listed)


def _of_plugin(tag: str, **what: Any) -> Summary:
    content = HParamsPluginData(version=0, **what).SerializeToString()
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=content))
    return Summary(value=[Summary.Value(tag=tag, metadata=plugin)])


def _known(folder: Path) -> _Known:
    """What the event files in a folder hold. Of a file that was cut off, what comes before the cut."""
    found, of_epochs = _Known(), set(TAGS.values())
    for file in sorted(folder.glob(f"{EVENTS}*")) if folder.is_dir() else ():
        found.files += 1
        for event in _events(file):
            for value in event.summary.value:
                if value.tag == _START:
                    found.is_begun = True
                elif value.tag in of_epochs:
                    found.epochs.add(event.step)
                elif value.tag == "status/text_summary":
                    found.ended_as |= {word.decode(errors="replace") for word in value.tensor.string_val}
    return found


def _events(file: Path) -> Iterator[Any]:
    """The events of a file: each has its length in eight bytes before it, and checksums of four around it."""
    with opened(file) as content:
        while len(head := content.read(12)) == 12:
            (size,) = struct.unpack("<Q", head[:8])
            if size > _MOST_RECORD or len(record := content.read(size + 4)) < size + 4:
                return
            try:
                yield Event.FromString(record[:size])
            except DecodeError:
                return
