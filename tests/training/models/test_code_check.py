"""What is wrong with a user's own network is found before the first trial, and told with the user's own line."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnnsearch.errors import RequestError
from cnnsearch.planning.trial import Trial
from cnnsearch.spec import own_code
from cnnsearch.spec.own_code import read_code, trust
from cnnsearch.spec.settings import Settings
from cnnsearch.training.models import checked_code
from cnnsearch.training.models.code_check import Case, check
from tests.own_code import NETS, write_nets
from tests.training.models.making import save_weights

HEAD = "return self.head(self.drop(x.view(x.size(0), -1)))"
"""Line 19 of the file with networks: what `SmallNet.forward`, at line 17, returns."""


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(own_code, "_TRUSTED", {})
    states = random.getstate(), np.random.get_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])


def settings(folder: Path, nets: Any = NETS, model: Any = "SmallNet", **values: Any) -> Settings:
    snapshot = read_code(write_nets(folder, nets))
    trust([snapshot])
    given = {"model": model, "code": snapshot.digest, "image_size": 8, **values}
    return Settings.model_validate(given)


@pytest.mark.parametrize("fine_tune", ["full", "head", "last-1-convs"])
@pytest.mark.parametrize("values", [{}, {"dropout": 0.5, "model_args.depth": 2}])
def test_a_sound_network_passes(fine_tune: str, values: dict[str, Any], tmp_path: Path) -> None:
    check(Case(settings(tmp_path, fine_tune=fine_tune, **values)), 5)
    check(Case(settings(tmp_path, model="flat_net", width=2.0)), 5)


FORWARD, RETURN = "line 17: SmallNet ", "line 19: "
RANDOM = "SmallNet draws random numbers from Python's random or from numpy"
FAULTS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "another shape": (HEAD, "return x", {}, FORWARD + r"gives float32 of the shape \[4, 4, 2, 2\] for 4 images"),
    "no tensor": (HEAD, "return [x]", {}, FORWARD + r"gives a list for 4 images, not logits of the shape \[4, 5\]"),
    "one image": (HEAD, HEAD + ".squeeze()", {}, FORWARD + r"gives float32 of the shape \[5\] for 1 images"),
    "NaN": (HEAD, HEAD + " / 0", {}, FORWARD + "gives NaN or infinite values before any training"),
    "an error": (HEAD, HEAD + " + images", {}, RETURN + r"RuntimeError: .*\nwhile SmallNet computes images \(4, 3, 8"),
    "always random": (
        HEAD,
        "return self.head(nn.functional.dropout(x.flatten(1), 0.5))",
        {},
        FORWARD + "gives random values in evaluation, too; F.dropout",
    ),
    "Python's random": (
        HEAD,
        "import random\n        return self.head(x.flatten(1)) * random.uniform(1, 2)",
        {},
        "line 20: " + RANDOM,
    ),
    "numpy's random": (
        "self.drop =",
        "import numpy as np\n        self.factor = np.random.rand()\n        self.drop =",
        {},
        "line 14: " + RANDOM,
    ),
    "another generator": (
        "self.drop =",
        "import numpy, torch\n        self.w = nn.Parameter(torch.tensor(numpy.random.default_rng().random(3)))\n"
        "        self.drop =",
        {},
        "line 7: w of SmallNet begins with other values each time, though the seed is the same",
    ),
    "layers in a list": (
        "nn.Sequential(*(block(4 if number else 3, 4) for number in range(depth)))",
        "[block(3, 4)]",
        {},
        "line 12: SmallNet.blocks keeps layers in a list, where torch does not find them",
    ),
    "no parameters": (
        "self.head = nn.Linear(16, num_classes)",
        "self.requires_grad_(False)",
        {},
        "line 7: SmallNet has no parameters that could be trained",
    ),
    "the same network": (
        "class SmallNet(nn.Module):",
        "def SmallNet(num_classes):\n    return KEPT.setdefault(num_classes, nn.Linear(3, num_classes))\n\n\n"
        "KEPT = {}\n\n\nclass Other(nn.Module):",
        {},
        "line 7: SmallNet gives the same layers each time that it is called",
    ),
    "TorchScript": (
        "class SmallNet(nn.Module):",
        "def SmallNet(num_classes):\n    import torch\n    return torch.jit.script(nn.Linear(3, num_classes))\n\n\n"
        "class Other(nn.Module):",
        {},
        "line 7: .* is a TorchScript program",
    ),
    "no gradient": (HEAD, HEAD + ".detach().requires_grad_()", {}, FORWARD.replace("SmallNet", "the loss of SmallNet")),
    "a counter": (
        HEAD,
        "self.calls = getattr(self, 'calls', 0) + 1\n        return self.head(x.flatten(1)) * self.calls",
        {},
        RETURN + "SmallNet has state that is not in its state_dict: SmallNet.calls, and so is lost",
    ),
    "a tensor that is no buffer": (
        "self.drop = nn.Dropout(dropout)",
        "import torch\n        self.noise = torch.rand(1)\n        self.drop = lambda x: x * self.noise",
        {},
        "line 14: SmallNet has state that is not in its state_dict: SmallNet.noise",
    ),
    "no head": (
        "nn.Linear(hidden, num_classes))",
        "nn.Linear(hidden, 5 * num_classes), nn.Unflatten(1, (num_classes, 5)), nn.AvgPool1d(5), nn.Flatten())",
        {"fine_tune": "head", "model": "flat_net"},
        "line 22: fine_tune head with model flat_net: it has no last linear or convolutional layer with 5 outputs",
    ),
    "few convolutions": ("", "", {"fine_tune": "last-3-convs"}, "line 7: fine_tune last-3-convs .* has 1 convolutions"),
    "values decide": (
        HEAD,
        "x = x * 2 if x.sum() > 0 else x\n        " + HEAD,
        {"fine_tune": "head"},
        RETURN + r"TraceError: .*\nfine_tune head with model SmallNet needs a network that torch.fx can trace",
    ),
    "F.dropout": (
        HEAD,
        "return self.head(nn.functional.dropout(x.flatten(1), 0.5, self.training))",
        {"fine_tune": "head"},
        "line 17: fine_tune head with model SmallNet: traced, it computes something else",
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_its_line(fault: str, tmp_path: Path) -> None:
    old, new, values, told = FAULTS[fault]
    nets = NETS.replace(old, new)
    with pytest.raises(RequestError, match=told):
        check(Case(settings(tmp_path, nets, **values)), 5)


def test_weights_of_another_shape_cannot_be_started_from(tmp_path: Path) -> None:
    def deep(depth: int) -> Settings:
        args: dict[str, Any] = {"model_args.depth": depth}
        return settings(tmp_path, **args)

    case = Case(deep(2), parent=deep(1))
    with pytest.raises(RequestError, match=r"SmallNet with model_args.depth 2 cannot start from .*blocks.1"):
        check(case, 5)


def test_a_file_of_weights_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not fit"):
        check(Case(settings(tmp_path), weights=save_weights(tmp_path, "resnet18")), 5)


def test_each_value_that_may_change_a_network_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def answer(request: Any) -> dict[str, Any]:
        asked.append(request)
        return {}

    monkeypatch.setattr(checked_code, "answer", answer)
    cells = [
        {"model_args.depth": depth, "lr": lr, "dropout": p}
        for depth in (1, 2, 3)
        for lr in (0.1, 0.2)
        for p in (0, 0.5)
    ]
    trials = [Trial("grid", settings(tmp_path, **cell), "f") for cell in cells]
    trials.append(Trial("grid", Settings(), "f"))
    checked_code.refuse_faulty(trials, {}, {}, 5)
    (request,) = asked
    assert [(case["settings"]["model_args"]["depth"], case["settings"]["dropout"]) for case in request["cases"]] == [
        (1, 0), (1, 0.5), (2, 0), (3, 0),
    ]  # fmt: skip
    assert [one["file"] for one in request["code"]] == [str(tmp_path / "nets.py")]
    checked_code.refuse_faulty(trials[-1:], {}, {}, 5)
    assert len(asked) == 1


def test_nothing_is_drawn_from_the_generators_of_a_sound_network(tmp_path: Path) -> None:
    before = random.getstate()
    check(Case(settings(tmp_path)), 5)
    assert random.getstate() == before
    assert torch.is_grad_enabled()
