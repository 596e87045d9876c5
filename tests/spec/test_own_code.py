"""Files of a user's own networks: what is read and hashed, and what a sweep may name. Nothing of them runs here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cnnsearch.errors import RequestError
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.trial import Trial
from cnnsearch.spec import own_code
from cnnsearch.spec.load import from_yaml, load_sweep, to_yaml
from cnnsearch.spec.own_code import read_code
from cnnsearch.spec.sweep import Sweep
from tests.own_code import BLOCKS, NETS, SWEEP, write_nets, write_sweep


@pytest.fixture(autouse=True)
def _nothing_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "_TRUSTED", {})
    monkeypatch.setattr(own_code, "_REGISTERED", {})


def load(folder: Path, *values: str, sweep: str = SWEEP) -> Sweep:
    return load_sweep(write_sweep(folder, sweep), values=values, code=[folder / "nets.py"])


def trials(sweep: Sweep) -> list[Trial]:
    return list(make_plan(sweep, "f" * 16, {}).trials.values())


def test_a_file_is_read_with_what_it_imports_from_beside_it(tmp_path: Path) -> None:
    found = read_code(write_nets(tmp_path))
    assert list(found.files) == ["nets.py", "blocks.py"]
    assert list(found.models) == ["SmallNet", "flat_net"]  # not _helper, which is private
    assert found.place_of("SmallNet") == f"{tmp_path / 'nets.py'}, line 7"


def test_packages_and_relative_imports_are_followed(tmp_path: Path) -> None:
    (tmp_path / "layers" / "deep").mkdir(parents=True)
    (tmp_path / "layers" / "__init__.py").write_text("from .one import One\n")
    (tmp_path / "layers" / "one.py").write_text("from . import two\nfrom .deep.three import x\nOne = 1\n")
    (tmp_path / "layers" / "two.py").write_text("")
    (tmp_path / "layers" / "deep" / "three.py").write_text("x = 1\n")
    (tmp_path / "random.py").write_text("")  # its name is one of the standard library's, which is meant
    file = tmp_path / "nets.py"
    file.write_text("import random\nfrom layers import One\n\ndef net(num_classes):\n    import other\n")
    (tmp_path / "other.py").write_text("")
    names = {"nets.py", "layers/__init__.py", "layers/one.py", "layers/two.py", "layers/deep/three.py", "other.py"}
    assert set(read_code(file).files) == names


def test_the_digest_is_that_of_all_sources_and_of_nothing_else(tmp_path: Path) -> None:
    first = read_code(write_nets(tmp_path / "a")).digest
    assert read_code(write_nets(tmp_path / "b", name="renamed.py")).digest == first
    (tmp_path / "a" / "unused.py").write_text("x = 1\n")
    (tmp_path / "a" / "nets.py").write_bytes(NETS.replace("\n", "\r\n").encode())
    assert read_code(tmp_path / "a" / "nets.py").digest == first
    (tmp_path / "a" / "blocks.py").write_text(BLOCKS.replace("ReLU", "GELU"))
    assert read_code(tmp_path / "a" / "nets.py").digest != first


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("class Net(\n", "nets.py, line 1: "),
        ("x = 1\n", "it defines no class or function"),
        ("\ndef resnet18(num_classes):\n    pass\n", "nets.py, line 2: resnet18 is the name of a model"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text(text)
    with pytest.raises(RequestError, match=told):
        read_code(file)


@pytest.mark.parametrize("name", ["missing.py", "nets.txt", "my-nets.py"])
def test_a_file_that_is_none_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "my-nets.py").write_text("def net(): pass\n")
    with pytest.raises(RequestError, match=name):
        read_code(tmp_path / name)


def test_a_sweep_names_the_networks_of_a_file(tmp_path: Path) -> None:
    file = write_nets(tmp_path)
    sweep = load(tmp_path)
    digest = read_code(file).digest
    assert [(one.file, one.digest, one.models) for one in sweep.code] == [(str(file), digest, ("SmallNet",))]
    assert [trial.settings.model_args for trial in trials(sweep)] == [{"depth": 1}, {"depth": 2}]
    assert {trial.settings.code for trial in trials(sweep)} == {digest}
    assert from_yaml(to_yaml(sweep), "sweep.yaml") == sweep  # also where nobody has named the file


def test_without_the_file_a_sweep_knows_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"line 9: .*given 'SmallNet'.*A network of your own: --code FILE.py"):
        load_sweep(write_sweep(tmp_path))


def test_a_misspelled_network_is_named_with_the_nearest(tmp_path: Path) -> None:
    write_nets(tmp_path)
    text = SWEEP.replace("model: SmallNet", "model: {grid: [SmallNet, SmalNet]}")
    with pytest.raises(RequestError, match=r"given 'SmalNet'.*Did you mean SmallNet"):
        load(tmp_path, sweep=text)


def test_a_file_that_the_sweep_does_not_use_is_refused(tmp_path: Path) -> None:
    write_nets(tmp_path)
    with pytest.raises(RequestError, match="names none of its models, SmallNet, flat_net"):
        load(tmp_path, "stages.grid.space={model: plain}")


def test_two_networks_of_one_name_are_refused(tmp_path: Path) -> None:
    files = [write_nets(tmp_path), write_nets(tmp_path, name="more.py")]
    with pytest.raises(RequestError, match=r"two SmallNet, .*nets.py, line 7 and .*more.py, line 7"):
        load_sweep(write_sweep(tmp_path), code=files)


def test_ids_hold_the_code_and_the_arguments(tmp_path: Path) -> None:
    file = write_nets(tmp_path)
    before = {trial.id for trial in trials(load(tmp_path))}
    assert before == {trial.id for trial in trials(load(tmp_path))}
    assert len(before) == 2
    file.write_text(NETS.replace("MaxPool2d", "AvgPool2d"))
    assert before.isdisjoint(trial.id for trial in trials(load(tmp_path)))


def test_settings_of_other_models_say_nothing_of_code() -> None:
    (first, *_) = trials(load_sweep("part1"))
    assert first.settings.model_dump().keys() & {"code", "model_args"} == set()
    assert "code" not in to_yaml(load_sweep("part1"))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"train.model_args": {"num_classes": 3}}, "train.model_args.*num_classes is no argument to give here"),
        ({"train.model_args": {"a b": 3}}, "'a b' cannot be the name of an argument"),
        ({"stages.grid.space.model_args.width": 2}, "space.model_args.width .*the key width"),
        ({"stages.grid.space.model_args.lr.grid": []}, "grid needs a list of values"),
        (
            {"stages.grid.space.model.grid": ["SmallNet", "plain"]},
            "model_args.depth with model plain: only networks of",
        ),
        ({"stages.grid.space.weights": "imagenet"}, "weights imagenet with model SmallNet"),
    ],
)
def test_arguments_that_cannot_be_are_refused(values: dict[str, object], told: str, tmp_path: Path) -> None:
    write_nets(tmp_path)
    with pytest.raises(RequestError, match=told):
        load_sweep(write_sweep(tmp_path), values=values, code=[tmp_path / "nets.py"])


def test_any_json_value_is_an_argument_and_each_an_axis(tmp_path: Path) -> None:
    write_nets(tmp_path)
    values = [[1, 2], {"a": None}, None, True, 0.5, "word"]
    sweep = load(
        tmp_path,
        f"stages.grid.space.model_args.depth.grid={json.dumps(values)}",
        "train.model_args.other=[1, null]",
    )
    found = trials(sweep)
    assert [trial.settings.model_args for trial in found] == [{"other": [1, None], "depth": value} for value in values]
    assert len({trial.id for trial in found}) == 6
    assert from_yaml(to_yaml(sweep), "sweep.yaml") == sweep


def test_an_axis_may_belong_to_one_network_of_several(tmp_path: Path) -> None:
    write_nets(tmp_path)
    sweep = load(
        tmp_path,
        "stages.grid.space.model.grid=[SmallNet, plain]",
        "stages.grid.space.model_args.depth={grid: [1, 2], when: {model: SmallNet}}",
    )
    assert [(t.settings.model, t.settings.value("model_args.depth")) for t in trials(sweep)] == [
        ("SmallNet", 1),
        ("SmallNet", 2),
        ("plain", None),
    ]


def test_profiles_may_stand_beside_them_and_may_name_them(tmp_path: Path) -> None:
    write_nets(tmp_path)
    profiles = "profiles:\n  quick: {train.epochs: 1}\n  flat: {train.model: flat_net}\n"
    file = write_sweep(tmp_path, f"{SWEEP.rstrip()}\n{profiles}")
    for profile in (None, "quick", "flat"):
        assert load_sweep(file, profile=profile, code=[tmp_path / "nets.py"]).code
    with pytest.raises(RequestError, match=r"A network of your own: --code FILE.py"):
        load_sweep(file, profile="quick")
