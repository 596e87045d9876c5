"""The JSON Schema of sweep files, by which editors complete keys and mark mistakes while one types.

It is made from the classes that read sweep files, so it knows what they know of single values. What takes several
values to tell, such as that a network fits an image size, only loading the file can say.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from pydantic import BaseModel

from cnnsearch.spec.arguments import GIVEN, OF_OPTIMIZER
from cnnsearch.spec.confirm import LEAST_SEEDS, MOST_SEEDS
from cnnsearch.spec.data import SPLIT_KINDS
from cnnsearch.spec.model_names import KNOWN
from cnnsearch.spec.settings import AXES, Settings
from cnnsearch.spec.stage import SINGLE_OBJECTIVES, StopEarly
from cnnsearch.spec.sweep import Sweep
from cnnsearch.spec.values import LISTED_KINDS, NUMERIC_KINDS

Schema = dict[str, Any]

FILE = Path(str(resources.files("cnnsearch") / "shipped" / "sweep.schema.json"))
"""The schema as it comes with the package."""
DRAFT = "http://json-schema.org/draft-07/schema#"
"""The version of JSON Schema that most editors know."""
SEED: Schema = {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}
SCALAR: Schema = {"type": ["null", "boolean", "number", "string"]}
AN_ARGUMENT = "an argument"
"""Stands for any argument where axes are named."""
OF_MODEL = rf"(?!({'|'.join(GIVEN)})$)[^\W\d]\w*"
OF_AN_OPTIMIZER = f"({'|'.join(sorted({name for args in OF_OPTIMIZER.values() for name in args}))})"
ARGUMENT = rf"^(model_args[.]{OF_MODEL}|optimizer_args[.]{OF_AN_OPTIMIZER})$"
"""Pattern of an axis that is an argument, of the user's own network or of an optimizer."""
CHOSEN_ONLY = ("at_once", "objectives", "first", "prior")
"""Keys of `search:` that only methods with suggestions take; `trials` all but grid."""


def first_line(beside: str | None = None) -> str:
    """The comment at the beginning of a sweep file that names the schema to editors: the one in the package, or one in
    a file beside it."""
    return f"# yaml-language-server: $schema={FILE.as_uri() if beside is None else quote(beside)}"


def schema_text() -> str:
    """The schema as a JSON file, a line for each part."""
    schema = sweep_schema()
    parts, own = schema.pop("$defs"), schema.pop("properties")

    def lines(named: Schema) -> str:
        return ",\n".join(f"{json.dumps(name)}:{_compact(value)}" for name, value in named.items())

    rest = _compact(schema).removesuffix("}")
    return f'{rest},\n"$defs":{{\n{lines(parts)}\n}},\n"properties":{{\n{lines(own)}\n}}}}\n'


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sweep_schema() -> Schema:
    """The JSON Schema of a sweep file."""
    schema: Schema = _untitled(Sweep.model_json_schema())
    parts, own = schema["$defs"], schema["properties"]
    for kind in get_args(get_args(StopEarly)[0]):
        parts[kind.__name__]["required"] = ["method"]  # which a split need not name
    parts["DataSpec"]["properties"] |= _data(parts["DataSpec"]["properties"])
    parts["TrainSpec"]["properties"]["model"] = _model()
    for group, pattern in (("model_args", OF_MODEL), ("optimizer_args", OF_AN_OPTIMIZER)):
        parts["TrainSpec"]["properties"][group]["propertyNames"] = {"pattern": f"^{pattern}$"}
    parts["TrainSpec"]["patternProperties"] = {ARGUMENT: {}}
    parts["RunSpec"]["properties"] |= _run(parts["RunSpec"]["properties"])
    parts["Search"]["allOf"] = list(_search_rules())
    axis = {"$ref": "#/$defs/AxisName"}
    parts["StartFrom"]["properties"]["per"] = {
        "description": parts["StartFrom"]["properties"]["per"]["description"],
        "anyOf": [axis, {"type": "array", "items": axis}],
    }
    for kind in SPLIT_KINDS:
        for name, field in kind.model_fields.items():  # pydantic drops limits of what may be a fraction or a number
            for bound in (rule.gt for rule in field.metadata if hasattr(rule, "gt")):
                parts[kind.__name__]["properties"][name]["exclusiveMinimum"] = bound
    parts["Stage"]["properties"]["space"] |= _space()
    parts["Stage"]["allOf"] = [_listed_in_a_grid()]
    parts["Model"] = {  # of which networks of the user's own have any name that Python takes
        "anyOf": [
            {"enum": list(KNOWN)},
            {"type": "string", "pattern": r"^timm:[A-Za-z0-9_][A-Za-z0-9_-]*([.][A-Za-z0-9_-]+)?$"},
            {"type": "string", "pattern": r"^[^\W\d]\w*$"},
        ]
    }
    parts["AxisName"] = {"anyOf": [{"enum": list(AXES)}, {"type": "string", "pattern": ARGUMENT}]}
    parts["When"] = {
        "type": "object",
        "description": "earlier axis -> its values for which this axis varies; for others the value of train: holds",
        "minProperties": 1,
        "propertyNames": {"$ref": "#/$defs/AxisName"},
    }
    own["seeds"] |= {"items": SEED, "uniqueItems": True}
    own["confirm"] = {
        "description": own["confirm"]["description"],
        "anyOf": [
            {"$ref": "#/$defs/Confirm"},
            {"type": ["null", "boolean"]},
            {"const": 0},
            {"type": "integer", "minimum": LEAST_SEEDS, "maximum": MOST_SEEDS},
        ],
    }
    parts["Confirm"]["properties"] |= _confirm(parts["Confirm"]["properties"])
    parts["Profile"] = _profile(own, parts)
    own["profiles"] = {
        "description": "sets of changes, one of which --profile chooses: name -> dotted key -> value",
        "type": ["object", "null"],
        "additionalProperties": {"$ref": "#/$defs/Profile"},
    }
    del parts["Values"]
    return {"$schema": DRAFT, "title": "a sweep of cnnsearch", **schema}


def _untitled(node: Any) -> Any:
    """The schema without pydantic's titles, which editors would show in place of descriptions, and without the keyword
    `discriminator`, which is not JSON Schema's."""
    if isinstance(node, list):
        return [_untitled(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _untitled(value) for key, value in node.items() if key != "discriminator"}
    if isinstance(kept.get("title"), str):
        del kept["title"]
    return kept


def _data(fields: Schema) -> Schema:
    """The keys of `data:` that say less in pydantic's schema than is checked."""
    pixel = {"type": "integer", "minimum": 0, "maximum": 65535}
    return {
        # Each kind has keys of its own and knows its method, so that a file need not name it.
        "split": {
            "description": "how images are divided into training, validation and test",
            "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in SPLIT_KINDS],
        },
        "grey_range": {
            "description": fields["grey_range"]["description"],
            "anyOf": [{"const": "full"}, {"type": "array", "items": pixel, "minItems": 2, "maxItems": 2}],
            "default": "full",
        },
    }


def _run(fields: Schema) -> Schema:
    """The keys of `run:` that are auto or a number within limits."""
    limits: dict[str, list[Schema]] = {
        "trials_at_once": [{"type": "integer", "minimum": 1}],
        "threads_per_trial": [{"type": "integer", "minimum": 1}],
        "gpus_per_trial": [
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            {"type": "integer", "minimum": 1, "maximum": 64},
        ],
    }
    return {name: fields[name] | {"anyOf": [{"const": "auto"}, *allowed]} for name, allowed in limits.items()}


def _confirm(fields: Schema) -> Schema:
    words = {"type": "string", "pattern": r"^\s*[0-9]+([.][0-9]*)?\s*(points)?\s*$"}
    margin = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
    contenders = {"type": "integer", "minimum": 2, "maximum": MOST_SEEDS}
    return {
        "seeds": fields["seeds"] | {"minimum": LEAST_SEEDS, "maximum": MOST_SEEDS},
        "contenders": fields["contenders"] | {"anyOf": [{"const": "auto"}, contenders]},
        "margin": {
            "description": fields["margin"]["description"],
            "default": fields["margin"]["default"],
            "anyOf": [margin, words],
        },
    }


def _model() -> Schema:
    field = Settings.model_fields["model"]
    return {
        "description": field.description,
        "default": field.default,
        "allOf": [{"$ref": "#/$defs/Model"}],
    }


def _space() -> Schema:
    """The axes of a space, each with its values."""
    return {
        "properties": {axis: _values(axis) for axis in AXES},
        "patternProperties": {ARGUMENT: _values(AN_ARGUMENT)},
        "additionalProperties": False,
    }


def _values(axis: str) -> Schema:
    """The values of one axis: a constant, a list, or a range where its values are numbers."""
    one = _one_value(axis)
    ranges: dict[str, Schema] = {kind: _range(kind) for kind in NUMERIC_KINDS if _takes(axis, kind)}
    listed = {kind: {"type": "array", "items": one, "minItems": 1, "uniqueItems": True} for kind in LISTED_KINDS}
    if axis in AXES:
        ranges = {kind: schema | {"items": {"allOf": [schema["items"], one]}} for kind, schema in ranges.items()}
    kinds = [
        {
            "type": "object",
            "properties": {kind: values, "when": {"$ref": "#/$defs/When"}},
            "required": [kind],
            "additionalProperties": False,
        }
        for kind, values in {**listed, **ranges}.items()
    ]
    described = {"description": Settings.model_fields[axis].description} if axis in AXES else {}
    return {**described, "anyOf": [SCALAR if axis == AN_ARGUMENT else one, *kinds]}


def _one_value(axis: str) -> Schema:
    """A single value on an axis; an argument may have any."""
    if axis == AN_ARGUMENT:
        return {}
    if axis == "model":
        return {"$ref": "#/$defs/Model"}
    found: Schema = _untitled(AXES[axis].json_schema())
    return {key: value for key, value in found.items() if key not in ("description", "default")}


def _takes(axis: str, kind: str) -> bool:
    """Whether a kind of range suits an axis: numbers only, and fractions only where they make sense."""
    if axis == AN_ARGUMENT:
        return True
    annotation = Settings.model_fields[axis].annotation
    return annotation is float or (annotation is int and kind == "int")


def _range(kind: str) -> Schema:
    """A pair of bounds; that the first one is smaller, no schema can say."""
    number: Schema = {"type": "integer" if kind == "int" else "number"}
    if kind == "loguniform":
        number["exclusiveMinimum"] = 0
    return {"type": "array", "items": number, "minItems": 2, "maxItems": 2}


def _listed_in_a_grid() -> Schema:
    """A stage whose combinations are all run has listed values alone."""
    other = [kind for kind in (*LISTED_KINDS, *NUMERIC_KINDS) if kind != "grid"]
    listed = {"not": {"anyOf": [{"type": "object", "required": [kind]} for kind in other]}}
    searched = {
        "required": ["search"],
        "properties": {"search": {"required": ["method"], "properties": {"method": {}}}},
    }
    by_grid = {"properties": {"search": {"properties": {"method": {"const": "grid"}}}}}
    return {
        "if": {"anyOf": [{"not": searched}, by_grid]},
        "then": {"properties": {"space": {"additionalProperties": listed}}},
    }


def _search_rules() -> list[Schema]:
    """Which keys of `search:` go with which method."""

    def where(methods: list[str], then: Schema, *, by_default: bool = False) -> Schema:
        named: Schema = {"properties": {"method": {"enum": methods}}}
        return {"if": named if by_default else named | {"required": ["method"]}, "then": then}

    def without(*keys: str) -> Schema:
        empty: dict[str, Schema] = {"trials": {"const": None}, "at_once": {"const": None}}
        return {"properties": {key: empty.get(key, {"maxItems": 0}) for key in keys}}

    one = {"maxItems": 1, "items": {"enum": list(SINGLE_OBJECTIVES)}}
    several = {"objectives": {"minItems": 2, "uniqueItems": True}}
    counted = {"required": ["trials"], "properties": {"trials": {"type": "integer"}}}
    return [
        where(["grid"], without("trials", *CHOSEN_ONLY), by_default=True),
        where(["random", "tpe", "gp", "cmaes", "qmc", "nsga2"], counted),
        where(["random"], without(*CHOSEN_ONLY)),
        where(["qmc"], without("at_once", "objectives")),
        where(["tpe", "gp", "cmaes"], {"properties": {"objectives": one}}),
        where(["nsga2"], {"required": ["objectives"], "properties": several}),
    ]


def _profile(own: Schema, parts: Schema) -> Schema:
    """What a profile may change: each key of a sweep, and the keys of its parts with dots between."""
    fields: Schema = {key: {"$ref": f"#/properties/{key}"} for key in own}
    for key, part in _mappings(Sweep).items():
        for inner in parts[part]["properties"]:
            fields[f"{key}.{inner}"] = {"$ref": f"#/$defs/{part}/properties/{inner}"}
    for kind in SPLIT_KINDS:
        for inner in parts[kind.__name__]["properties"]:
            ways = fields.setdefault(f"data.split.{inner}", {"anyOf": []})["anyOf"]
            ways.append({"$ref": f"#/$defs/{kind.__name__}/properties/{inner}"})
    return {
        "type": "object",
        "properties": fields,
        "patternProperties": {
            r"^stages[.][a-z][a-z0-9_-]*([.]|$)": {},  # what the path leads to depends on the stages
            rf"^train[.]{ARGUMENT.removeprefix('^')}": {},
        },
        "additionalProperties": False,
    }


def _mappings(model: type[BaseModel]) -> dict[str, str]:
    """Each key whose value is a mapping with keys of its own -> the name of its class."""
    found = {}
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found[name] = kind.__name__
    return {name: kind for name, kind in found.items() if name not in ("stages", "code")}
