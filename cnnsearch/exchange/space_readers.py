"""Reads search spaces: W&B's sweeps, Ray Tune's as JSON, KerasTuner's hyperparameters, Hydra's sweeper."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cnnsearch.errors import RequestError
from cnnsearch.exchange.spaces import Param, Space
from cnnsearch.spec.document import parse_value, read as read_yaml, shown
from cnnsearch.spec.explain import ALIASES
from cnnsearch.spec.settings import Recipe
from cnnsearch.storage.reading import read_json
from cnnsearch.words import printable

ALLOWED = (
    "a sweep of W&B (with method and parameters), a space of Ray Tune as JSON (param_space), KerasTuner's "
    "hyperparameters as JSON (space), and a configuration of Hydra with hydra.sweeper"
)
_MOST_BYTES = 1_000_000
_WANDB_METHODS = {"grid": "grid", "random": "random", "bayes": "tpe"}
_SAMPLERS = {
    "tpe": "tpe", "random": "random", "grid": "grid", "cmaes": "cmaes", "qmc": "qmc", "gp": "gp", "optuna": "tpe",
    "hyperopt": "tpe", "bayesopt": "gp", "bayesian": "gp", "basic": "random",
}  # fmt: skip
_RULES = {
    "asha": "asha", "asyncsuccessivehalving": "asha", "asynchyperband": "asha", "hyperband": "hyperband",
    "median": "median", "medianstopping": "median",
}  # fmt: skip


def read_space(file: Path, name: str) -> Space:
    """Read a file of another tool; `name` is what messages call it. Raises RequestError."""
    try:
        tree = read_json(file, _MOST_BYTES) if file.suffix.lower() == ".json" else read_yaml(file, name).tree
    except OSError as error:
        raise RequestError(f"{name} cannot be read: {printable(error.strerror or str(error))}") from None
    except ValueError as error:
        raise RequestError(f"{name} cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise RequestError(f"{name} holds no mapping; allowed are {ALLOWED}")
    hyperparameters = tree.get("hyperparameters", tree)
    try:
        if isinstance(tree.get("parameters"), dict) and ("method" in tree or "program" in tree):
            return _wandb(tree)
        if isinstance(tree.get("param_space"), dict):
            return _ray(tree)
        if isinstance(hyperparameters, dict) and isinstance(hyperparameters.get("space"), list):
            return _keras(tree, hyperparameters)
        if isinstance(tree.get("hydra"), dict):
            return _hydra(tree)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise RequestError(f"{name} is not what its tool writes: {type(error).__name__}: {shown(str(error))}") from None
    raise RequestError(f"{name} is no search space that is known; allowed are {ALLOWED}")


def _listed(values: Any) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise ValueError(f"a list of values is needed, given {shown(values)}")
    return list(values)


def _pair(values: Any) -> list[float]:
    found = [value for value in values[:2] if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(found) != 2:
        raise ValueError(f"two numbers are needed, given {shown(values)}")
    return found


def _metric(space: Space, name: Any, goal: Any) -> None:
    space.metric = str(name or "")
    word = str(goal or "").lower()
    space.goal = "more" if word.startswith("max") else "less" if word.startswith("min") else ""


def _rule(space: Space, name: str, least: Any, factor: Any) -> None:
    rule = _RULES.get(re.sub(r"(scheduler|rule)$", "", name.lower().replace("_", "")))
    if rule is None:
        space.lose(f"the rule that stops trials, {name}", "there are asha, hyperband, median and patience")
        return
    space.rule = rule
    given = {"min_epochs": least, "reduction_factor": factor if rule != "median" else None}
    space.rule_settings = {key: round(value) for key, value in given.items() if isinstance(value, int | float)}


_ABOUT_THE_PROGRAM = "it is about the program, which is another one here"
_HERE = dict.fromkeys(("max_t", "max_iter", "max_resource"), "how long a trial trains at most is train.epochs here")
"""Key -> how the same is said here."""


def _rest(space: Space, tree: Mapping[str, Any], known: set[str], prefix: str = "") -> None:
    """Note all keys that were not used."""
    for key, value in tree.items():
        if key not in known and value not in (None, "", [], {}):
            axis, why = ALIASES.get(key, key), _HERE.get(key, _ABOUT_THE_PROGRAM)
            if any(param.name == key for param in space.params):
                why = "the program's default, where the sweep gives values of its own"
            elif axis in Recipe.model_fields:
                why = f"the program's default; if it should hold here, too: train.{axis}"
            space.lose(f"{prefix}{key}: {shown(value)}", why)


def _wandb(tree: Mapping[str, Any]) -> Space:
    space = Space("W&B", str(tree.get("name") or ""), str(tree.get("description") or ""))
    method = str(tree.get("method", "")).lower()
    space.method = _WANDB_METHODS.get(method, "")
    if method == "bayes":
        space.lose("method: bayes", "W&B's Gaussian process is not here; tpe is nearest, and gp is another choice")
    elif not space.method:
        space.lose(f"method: {shown(method)}", "it is not known")
    space.trials = tree.get("run_cap") if isinstance(tree.get("run_cap"), int) else None
    metric = tree.get("metric") or {}
    _metric(space, metric.get("name"), metric.get("goal"))
    if "target" in metric:
        space.lose(f"metric.target: {shown(metric['target'])}", "a sweep does not end at a score")
    if stop := tree.get("early_terminate"):
        factor, least = stop.get("eta", 3), stop.get("min_iter")
        if least is None and "max_iter" in stop:
            least = max(1, int(stop["max_iter"] / factor ** int(stop.get("s", 2))))
        _rule(space, str(stop.get("type", "")), least, factor)
        space.lose("iterations of early_terminate", "epochs take their place")
    space.params = list(_wandb_params(space, tree["parameters"], ""))
    known = {"name", "description", "method", "run_cap", "metric", "early_terminate", "parameters"}
    _rest(space, tree, known)
    return space


def _wandb_params(space: Space, params: Mapping[str, Any], prefix: str) -> Iterator[Param]:
    for key, given in params.items():
        name = f"{prefix}{key}"
        if not isinstance(given, dict):
            yield Param(name, "constant", [given])
            continue
        if "parameters" in given:
            yield from _wandb_params(space, given["parameters"], f"{name}.")
            continue
        if "probabilities" in given:
            space.lose(f"{name}.probabilities", "each value is as likely as the others")
        way = str(given.get("distribution", "")).removesuffix("_values")
        if "value" in given:
            yield Param(name, "constant", [given["value"]])
        elif "values" in given:
            yield Param(name, "listed", _listed(given["values"]))
        elif way in ("", "uniform", "int_uniform", "q_uniform", "log_uniform", "inv_log_uniform", "q_log_uniform"):
            yield _wandb_range(name, given, way)
        else:
            space.lose(f"{name}: {shown(given)}", f"{way} is no distribution here; give a range or a list")


def _wandb_range(name: str, given: Mapping[str, Any], way: str) -> Param:
    low, high = _pair([given["min"], given["max"]])
    is_log = "log" in way
    if is_log and not str(given["distribution"]).endswith("_values"):  # exponents of e
        low, high = 2.718281828459045**low, 2.718281828459045**high
    is_whole = way == "int_uniform" or (not way and isinstance(low, int) and isinstance(high, int))
    step = float(given.get("q", 1)) if way.startswith("q_") else None
    kind: Any = "int" if is_whole else "loguniform" if is_log else "uniform"
    return Param(name, kind, [low, high], step)


_RAY: dict[str, Callable[[list[Any]], tuple[Any, ...]]] = {
    "choice": lambda a: ("listed", _listed(a)),
    "grid_search": lambda a: ("listed", _listed(a)),
    "uniform": lambda a: ("uniform", _pair(a)),
    "loguniform": lambda a: ("loguniform", _pair(a)),
    "quniform": lambda a: ("uniform", _pair(a), float(a[2])),
    "qloguniform": lambda a: ("loguniform", _pair(a), float(a[2])),
    "randint": lambda a: ("int", [a[0], a[1] - 1]),  # the upper end is not among the values
    "lograndint": lambda a: ("logint", [a[0], a[1] - 1]),
    "qrandint": lambda a: ("int", _pair(a), float(a[2])),
    "qlograndint": lambda a: ("logint", _pair(a), float(a[2])),
}


def _ray(tree: Mapping[str, Any]) -> Space:
    space = Space("Ray Tune", str(tree.get("name") or ""))
    _metric(space, tree.get("metric"), tree.get("mode"))
    space.trials = tree.get("num_samples") if isinstance(tree.get("num_samples"), int) else None
    search = re.sub(r"(search|er)$", "", str(tree.get("search_alg") or "").lower())
    space.params = list(_ray_params(space, tree["param_space"], ""))
    grids = [key for key, given in tree["param_space"].items() if isinstance(given, dict) and "grid_search" in given]
    space.method = _SAMPLERS.get(search, "")
    if search and not space.method:
        space.lose(f"search_alg: {shown(tree['search_alg'])}", "there are random, tpe, gp, cmaes, qmc and nsga2")
    only_grid = grids and all(one.kind in ("listed", "constant") for one in space.params)
    space.method = space.method or ("grid" if only_grid else "random")
    if grids and space.method != "grid":
        space.lose(f"grid_search of {', '.join(map(printable, grids))}", "its values are drawn, not all of them run")
    if space.method == "grid" and (space.trials or 1) > 1:
        space.lose(f"num_samples: {space.trials}", "a grid runs once; --seeds repeats it")
    rule = tree.get("scheduler")
    settings: Mapping[str, Any] = {}
    if isinstance(rule, dict) and rule:
        rule, settings = next(iter(rule.items()))
    if rule and str(rule).upper() != "FIFO":
        _rule(space, str(rule), settings.get("grace_period"), settings.get("reduction_factor"))
        _rest(space, settings, {"grace_period", "reduction_factor"}, "scheduler.")
    _rest(space, tree, {"name", "metric", "mode", "num_samples", "search_alg", "param_space", "scheduler"})
    return space


def _ray_params(space: Space, params: Mapping[str, Any], prefix: str) -> Iterator[Param]:
    for key, given in params.items():
        name = f"{prefix}{key}"
        if not isinstance(given, dict):
            yield Param(name, "constant", [given])
        elif len(given) == 1 and (way := next(iter(given))) in _RAY:
            kind, args, *step = _RAY[way](given[way])
            yield Param(name, kind, args, *step)
        elif len(given) == 1 and next(iter(given)) in ("randn", "qrandn", "sample_from"):
            space.lose(f"{name}: {shown(given)}", f"{next(iter(given))} has no match; give a range or a list")
        else:
            yield from _ray_params(space, given, f"{name}/")


_KERAS_STATE = (
    "ongoing_trials", "start_order", "end_order", "run_times", "retry_queue", "seed", "seed_state", "tried_so_far",
    "id_to_hash", "display",
)  # fmt: skip
"""What oracle.json keeps of the trials that have run: no part of the space."""


def _keras(tree: Mapping[str, Any], found: Mapping[str, Any]) -> Space:
    space = Space("KerasTuner", str(tree.get("project_name") or ""), method="random")
    space.lose(
        "the tuner", "KerasTuner does not write which one it is; search: of the stage says how settings are chosen"
    )
    for one in found["space"]:
        config = one["config"]
        name, kind = str(config["name"]), str(one["class_name"])
        when = {}
        for condition in config.get("conditions") or []:
            of = condition.get("config", {})
            when[str(of.get("name"))] = list(of.get("values", []))
        if kind == "Fixed":
            space.params.append(Param(name, "constant", [config["value"]], when=when))
        elif kind == "Boolean":
            space.params.append(Param(name, "listed", [False, True], when=when))
        elif kind == "Choice":
            space.params.append(Param(name, "listed", _listed(config["values"]), when=when))
        elif kind in ("Int", "Float"):
            space.params.append(_keras_range(space, name, kind, config, when))
        else:
            space.lose(f"{name}: {shown(kind)}", "it is not known")
    _rest(space, tree, {"hyperparameters", "space", "values", "project_name", *_KERAS_STATE})
    return space


def _keras_range(space: Space, name: str, kind: str, config: Mapping[str, Any], when: Mapping[str, Any]) -> Param:
    low, high = _pair([config["min_value"], config["max_value"]])
    sampling, step = config.get("sampling") or "linear", config.get("step")
    if sampling == "reverse_log":
        space.lose(f"{name}.sampling: reverse_log", "its values are drawn evenly")
    is_log = sampling == "log"
    if is_log and step:
        space.lose(f"{name}.step: {step}", "of a logarithmic range, values are not stepped")
        step = None
    if kind == "Int":
        return Param(name, "logint" if is_log else "int", [low, high], None if step in (None, 1) else float(step), when)
    return Param(name, "loguniform" if is_log else "uniform", [low, high], float(step) if step else None, when)


def _hydra(tree: Mapping[str, Any]) -> Space:
    hydra = tree["hydra"]
    sweeper = hydra.get("sweeper") or {}
    space = Space("Hydra", str((hydra.get("job") or {}).get("name") or ""))
    sampler = sweeper.get("sampler") or {}
    target = str(sampler.get("_target_", "")).rpartition(".")[2].lower().removesuffix("sampler")
    space.method = _SAMPLERS.get(target, "tpe" if "n_trials" in sweeper else "grid")
    if target and target not in _SAMPLERS:
        space.lose(f"sampler: {shown(sampler.get('_target_'))}", "there are random, tpe, gp, cmaes, qmc and nsga2")
    space.trials = sweeper.get("n_trials") if isinstance(sweeper.get("n_trials"), int) else None
    direction = sweeper.get("direction")
    if isinstance(direction, list):
        space.lose(
            f"direction: {shown(direction)}", "for several objectives: search: {method: nsga2, objectives: [...]}"
        )
        direction = direction[0] if direction else None
    _metric(space, "", direction)
    for name, given in (sweeper.get("params") or {}).items():
        _hydra_param(space, name.lstrip("+~"), given)
    for name, given in (sweeper.get("search_space") or {}).items():
        space.params.append(_hydra_search(name.lstrip("+"), given))
    known = {"_target_", "sampler", "n_trials", "direction", "params", "search_space"}
    _rest(space, sweeper, known, "hydra.sweeper.")
    for key in hydra.keys() - {"sweeper", "job", "mode"}:
        space.lose(f"hydra.{key}", _ABOUT_THE_PROGRAM)
    _rest(space, tree, {"hydra"})
    return space


_CALL = re.compile(r"^(?:tag\(\s*(log|int)\s*,\s*)?(int\(|float\()?(choice|range|interval|glob|shuffle)\((.*?)\)+$")


def _hydra_param(space: Space, name: str, given: Any) -> None:
    """Read an override of Hydra: `a,b`, choice(...), range(...), interval(...), with tags and casts."""
    if isinstance(given, list) or not isinstance(given, str):
        space.params.append(Param(name, "listed" if isinstance(given, list) else "constant",
                                  given if isinstance(given, list) else [given]))  # fmt: skip
        return
    found = _CALL.match(given.strip())
    if found is None:
        values = [_plain(part) for part in given.split(",")]
        space.params.append(Param(name, "listed" if len(values) > 1 else "constant", values))
        return
    tag, cast, call, inside = found.groups()
    args = [_plain(part) for part in inside.split(",") if "=" not in part]
    if call == "choice":
        space.params.append(Param(name, "listed", _listed(args)))
    elif call == "interval":
        kind: Any = "loguniform" if tag == "log" else "int" if tag == "int" or cast == "int(" else "uniform"
        space.params.append(Param(name, kind, _pair(args)))
    elif call == "range":
        start, stop, *step = args if len(args) > 1 else [0, *args]
        values = list(range(int(start), int(stop), int(step[0]) if step else 1))[:10_000]
        space.params.append(Param(name, "listed", _listed(values)))
    else:
        space.lose(f"{name}: {shown(given)}", f"{call} has no match; give a list")


def _plain(text: str) -> Any:
    return parse_value(text.strip(), "a value")


def _hydra_search(name: str, given: Mapping[str, Any]) -> Param:
    kind = given.get("type")
    if kind == "categorical":
        return Param(name, "listed", _listed(given["choices"]))
    low, high = _pair([given["low"], given["high"]])
    step = given.get("step")
    is_log = bool(given.get("log"))
    if kind == "int":
        return Param(name, "logint" if is_log else "int", [low, high], float(step) if step and step != 1 else None)
    return Param(name, "loguniform" if is_log else "uniform", [low, high], float(step) if step else None)
