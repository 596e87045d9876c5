"""Losses, mixed and erased images, clipped gradients, averaged weights and other optimizers: shown by their effect."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from cnnsearch.data.dataset import Dataset
from cnnsearch.errors import SpecError
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.trial import Trial
from cnnsearch.spec.arguments import OF_OPTIMIZER
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.settings import FUSED, Recipe, Settings
from cnnsearch.training.augment import ERASED, MOST_ELONGATED, Augmentation
from cnnsearch.training.average import Average
from cnnsearch.training.compute.device import reset_process
from cnnsearch.training.compute.optimizers import optimizer_of
from cnnsearch.training.evaluate import evaluate
from cnnsearch.training.loss import Loss
from cnnsearch.training.mixing import Mixing
from cnnsearch.training.models.backbones import head_names
from cnnsearch.training.models.build import initial_model
from cnnsearch.training.pixels import Pixels
from cnnsearch.training.train import TrainingState, train
from tests.training.test_train import settings

OTHERS = [name for name in Recipe.model_fields["optimizer"].annotation.__args__ if name not in FUSED]  # type: ignore[union-attr]
CHANGES: list[dict[str, Any]] = [
    {"loss": "focal"},
    {"loss": "focal", "focal_gamma": 4.0},
    {"loss": "bce"},
    {"erasing": 0.5},
    {"mixup": 0.4},
    {"cutmix": 1.0},
    {"mixup": 0.4, "cutmix": 1.0},
    {"grad_clip": 0.01},
    {"ema": 0.9},
    {"head_lr_factor": 10.0},
    *({"optimizer": name} for name in OTHERS),
    {"optimizer_args": {"betas": [0.5, 0.9], "eps": 1e-6}},
    {"optimizer_args": {"amsgrad": True}},
    {"optimizer": "sgd", "optimizer_args": {"nesterov": True}},
    {"optimizer": "rmsprop", "optimizer_args": {"alpha": 0.9, "momentum": 0.5, "centered": True}},
    {"optimizer": "muon", "optimizer_args": {"ns_steps": 2}},
]


def started(chosen: Settings) -> TrainingState:
    reset_process(threads=1)
    model = initial_model(chosen, 2, "cpu")
    return TrainingState.start(model, chosen, heads=head_names(model, 2))


def trained(dataset: Dataset, **changes: Any) -> TrainingState:
    chosen = settings(**changes)
    state = started(chosen)
    assert len(list(train(state, Pixels.of(dataset, "cpu"), chosen, precision="fp32"))) == chosen.epochs
    return state


def weights(state: TrainingState) -> Tensor:
    return torch.cat([value.flatten().double() for _, value in sorted(state.best_weights.items())])


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: " ".join(f"{k}={v}" for k, v in changes.items()))
def test_each_changes_what_is_learned_and_can_go_on_from_any_epoch(dataset: Dataset, changes: dict[str, Any]) -> None:
    whole = trained(dataset, **changes)
    assert all(row.is_finite for row in whole.rows)
    assert not torch.equal(weights(whole), weights(trained(dataset)))
    assert Trial("s", settings(**changes), "d").id != Trial("s", settings(), "d").id
    chosen, pixels = settings(**changes), Pixels.of(dataset, "cpu")
    first = started(chosen)
    next(train(first, pixels, chosen, precision="fp32"))
    again = started(chosen)
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    list(train(again, pixels, chosen, precision="fp32"))
    assert [row.val_loss for row in again.rows] == [row.val_loss for row in whole.rows]
    assert torch.equal(weights(again), weights(whole))


def test_what_has_no_effect_makes_no_new_trial() -> None:
    assert settings(focal_gamma=1.0).deciding() == settings().deciding()
    assert settings(loss="focal", focal_gamma=1.0).deciding()["focal_gamma"] == 1.0
    assert settings(optimizer="radam", momentum=0.5).deciding() == settings(optimizer="radam").deciding()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "rprop", "weight_decay": 0.1}, "weight_decay with optimizer rprop: it has none"),
        ({"fine_tune": "head", "head_lr_factor": 2.0}, "head_lr_factor with fine_tune head"),
        ({"ema": 1.0}, "less than 1"),
        ({"erasing": 1.5}, "less than or equal to 1"),
        ({"loss": "hinge"}, "'cross_entropy', 'focal' or 'bce'"),
        ({"optimizer": "lbfgs"}, "'rmsprop'"),
        ({"optimizer_args": {"beta": 0.9}}, "no optimizer takes 'beta'; allowed: alpha, amsgrad, beta2_decay, betas"),
        ({"optimizer_args": {"lr": 0.9}}, "lr is a setting of its own: give lr"),
        ({"optimizer_args": {"nesterov": True}}, "optimizer_args.nesterov with optimizer adam: allowed: betas, eps"),
        ({"optimizer_args": {"betas": [0.9]}}, r"optimizer_args.betas is \[0.9\]: Field required"),
        ({"optimizer_args": {"betas": [0.9, 1.0]}}, "Input should be less than 1"),
        ({"optimizer_args": {"eps": True}}, "optimizer_args.eps is True; allowed: a number"),
        ({"optimizer_args": {"amsgrad": 1}}, "optimizer_args.amsgrad is 1; allowed: true or false"),
        ({"optimizer": "sgd", "momentum": 0.0, "optimizer_args": {"nesterov": True}}, "it takes momentum"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings(**changes)


class TestLoss:
    LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -0.2], [-1.0, 1.0, 4.0], [0.1, 0.2, 0.3]])
    LABELS = torch.tensor([0, 2, 2, 1])
    OTHERS = torch.tensor([1, 2, 0, 0])
    SHARE = torch.tensor([0.3, 0.9, 0.5, 1.0])

    def loss(self, weights: Tensor | None = None, **changes: Any) -> Loss:
        return Loss(settings(**changes), weights)

    def test_focal_without_focus_is_cross_entropy(self) -> None:
        for smoothing in (0.0, 0.1):
            focal = self.loss(loss="focal", focal_gamma=0.0, label_smoothing=smoothing)(self.LOGITS, self.LABELS)
            plain = F.cross_entropy(self.LOGITS, self.LABELS, label_smoothing=smoothing)
            torch.testing.assert_close(focal, plain)

    def test_focal_by_hand(self) -> None:
        p = self.LOGITS.softmax(1)[range(4), self.LABELS]
        torch.testing.assert_close(
            self.loss(loss="focal")(self.LOGITS, self.LABELS), (-((1 - p) ** 2) * p.log()).mean()
        )

    def test_bce_is_torchs(self) -> None:
        wanted = F.binary_cross_entropy_with_logits(self.LOGITS, F.one_hot(self.LABELS, 3).float())
        torch.testing.assert_close(self.loss(loss="bce")(self.LOGITS, self.LABELS), wanted)

    @pytest.mark.parametrize("loss", ["cross_entropy", "focal", "bce"])
    def test_classes_weigh(self, loss: str) -> None:
        classes = torch.tensor([0.5, 0.0, 2.0])
        weighted = self.loss(classes, loss=loss)(self.LOGITS, self.LABELS)
        each = torch.stack([self.loss(loss=loss)(self.LOGITS[i : i + 1], self.LABELS[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(weighted, (each * classes[self.LABELS]).sum() / classes[self.LABELS].sum())

    def test_mixed_labels_are_shares_of_both(self) -> None:
        found = self.loss()(self.LOGITS, self.LABELS, (self.OTHERS, self.SHARE))
        soft = self.SHARE[:, None] * F.one_hot(self.LABELS, 3) + (1 - self.SHARE)[:, None] * F.one_hot(self.OTHERS, 3)
        torch.testing.assert_close(found, F.cross_entropy(self.LOGITS, soft))

    @pytest.mark.parametrize("loss", ["cross_entropy", "focal", "bce"])
    def test_an_image_mixed_with_nothing_stays_itself(self, loss: str) -> None:
        one = self.loss(loss=loss, label_smoothing=0.1)
        mixed = one(self.LOGITS, self.LABELS, (self.OTHERS, torch.ones(4)))
        torch.testing.assert_close(mixed, one(self.LOGITS, self.LABELS))


class TestMixing:
    SIDE = 32

    def drawn(self, epoch: int = 1, n: int = 4000, **changes: Any) -> Mixing:
        chosen = settings(image_size=self.SIDE, **changes)
        mixing = Mixing.of(chosen, torch.arange(5, n), n + 3)
        assert mixing is not None
        mixing.draw(epoch)
        return mixing

    def test_partners_are_the_training_images_each_once(self) -> None:
        mixing = self.drawn(mixup=1.0)
        assert sorted(mixing.partner[mixing.rows].tolist()) == mixing.rows.tolist()

    def test_shares_are_drawn_from_beta(self) -> None:
        share = self.drawn(mixup=0.4).share[5:4000]
        assert share.mean() == pytest.approx(0.5, abs=0.02)
        assert share.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)

    def test_a_cut_s_share_is_what_is_left_of_the_image(self) -> None:
        mixing = self.drawn(cutmix=1.0)
        rows = mixing.rows[:500]
        mixed = mixing(torch.zeros(500, 3, self.SIDE, self.SIDE), torch.ones(500, 3, self.SIDE, self.SIDE), rows)
        torch.testing.assert_close(1 - mixed.mean((1, 2, 3)), mixing.share[rows])
        assert set(mixed.unique().tolist()) == {0.0, 1.0}
        assert 0.4 < mixing.share[mixing.rows].mean() < 0.75

    def test_mixup_adds_two_images(self) -> None:
        mixing = self.drawn(mixup=1.0)
        rows = torch.tensor([7, 100])
        mixed = mixing(torch.full((2, 3, 4, 4), 1.0), torch.full((2, 3, 4, 4), 3.0), rows)
        torch.testing.assert_close(mixed[:, 0, 0, 0], 1.0 * mixing.share[rows] + 3.0 * (1 - mixing.share[rows]))

    def test_both_take_turns(self) -> None:
        box = self.drawn(mixup=1.0, cutmix=1.0).box[5:4000]
        is_cut = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
        assert 0.4 < is_cut.float().mean() < 0.55

    def test_each_epoch_and_seed_has_its_own(self) -> None:
        one = self.drawn(mixup=1.0).share
        assert torch.equal(one, self.drawn(mixup=1.0).share)
        assert not torch.equal(one, self.drawn(2, mixup=1.0).share)
        assert not torch.equal(one, self.drawn(mixup=1.0, seed=1).share)

    def test_without_it_there_is_none(self) -> None:
        assert Mixing.of(settings(), torch.arange(3), 3) is None


class TestErasing:
    def test_as_often_and_as_large_as_asked(self) -> None:
        chosen = settings(image_size=64, erasing=0.25)
        augmentation = Augmentation.of(chosen, 4000, "cpu")
        assert augmentation is not None
        augmentation.draw(1)
        assert augmentation.erased is not None
        high, wide = (augmentation.erased[:, 2:] - augmentation.erased[:, :2]).unbind(1)
        is_erased = high * wide > 0
        assert is_erased.float().mean() == pytest.approx(0.25, abs=0.03)
        share = (high * wide / 64**2)[is_erased]
        assert ERASED[0] * 0.7 < share.min()
        assert share.max() < ERASED[1] * 1.1
        assert (high / wide)[is_erased].log().abs().max() < np.log(MOST_ELONGATED) + 0.3
        assert augmentation.erased.min() >= 0
        assert augmentation.erased.max() <= 64

    def test_erased_pixels_are_the_mean_and_others_stay(self) -> None:
        augmentation = Augmentation.of(settings(image_size=16, erasing=1.0), 8, "cpu")
        assert augmentation is not None
        augmentation.draw(3)
        assert augmentation.erased is not None
        found = augmentation(torch.full((8, 3, 16, 16), 2.0), torch.arange(8))
        assert set(found.unique().tolist()) == {0.0, 2.0}
        sides = (augmentation.erased[:, 2:] - augmentation.erased[:, :2]).prod(1)
        assert (found[:, 0] == 0).sum((1, 2)).tolist() == sides.tolist()


class TestGradientClipping:
    def test_a_step_is_no_longer_than_allowed(self) -> None:
        model = nn.Linear(4, 3)
        optimizer = optimizer_of(model, settings(optimizer="sgd", momentum=0.0, lr=1.0, grad_clip=0.5))
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        model(torch.full((2, 4), 100.0)).sum().backward()
        optimizer.step()
        after = nn.utils.parameters_to_vector(model.parameters())
        assert (after - before).norm().item() == pytest.approx(0.5, rel=1e-4)

    def test_torch_s_optimizers_see_it_clipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, seen = nn.Linear(4, 3), list[float]()
        optimizer = optimizer_of(model, settings(optimizer="rmsprop", grad_clip=0.5))

        def look(optimizer: torch.optim.Optimizer) -> None:
            seen.append(float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])))

        monkeypatch.setattr(torch.optim.RMSprop, "step", look)
        model(torch.full((2, 4), 100.0)).sum().backward()
        optimizer.step()
        assert seen == [pytest.approx(0.5, rel=1e-4)]

    def test_a_small_gradient_stays(self, dataset: Dataset) -> None:
        assert torch.equal(weights(trained(dataset, grad_clip=1e6)), weights(trained(dataset)))


class TestAverage:
    def test_by_hand(self) -> None:
        model = nn.BatchNorm1d(1)
        names = set(model.state_dict())
        average = Average(model, names, 0.9)
        with torch.no_grad():
            model.weight.fill_(3.0)
            model.state_dict()["num_batches_tracked"].fill_(7)
        average.update(0)
        assert average.values["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 3.0)
        assert average.values["num_batches_tracked"].item() == 7
        average.update(1000)
        assert average.values["weight"].item() == pytest.approx(0.9 * 2.8 + 0.1 * 3.0)
        with average.in_place():
            assert model.weight.item() == pytest.approx(2.82)
        assert model.weight.item() == 3.0

    def test_it_is_what_is_evaluated_and_kept(self, dataset: Dataset) -> None:
        pixels, state = Pixels.of(dataset, "cpu"), trained(dataset, ema=0.95)
        assert state.best is not None
        state.model.load_state_dict(state.best_weights)
        assert evaluate(state.model, pixels, "val", precision="fp32").loss == state.best.val_loss

    def test_training_itself_stays_the_same(self, dataset: Dataset) -> None:
        averaged, plain = trained(dataset, ema=0.95), trained(dataset)
        assert [row.train_loss for row in averaged.rows] == [row.train_loss for row in plain.rows]


class TestOptimizers:
    @pytest.mark.parametrize("name", OF_OPTIMIZER)
    def test_arguments_are_those_that_torch_knows(self, name: str) -> None:
        kind = {kind.lower(): kind for kind in dir(torch.optim)}[name]
        known = inspect.signature(getattr(torch.optim, kind)).parameters
        assert set(OF_OPTIMIZER[name]) <= set(known)

    @pytest.mark.parametrize(
        ("name", "args"),
        [
            ("adam", {"betas": [0.5, 0.9], "amsgrad": True}),
            ("sgd", {"nesterov": True}),
            ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
            ("rprop", {"etas": [0.4, 1.3]}),
            ("adadelta", {"rho": 0.5}),
        ],
    )
    def test_arguments_reach_torch(self, name: str, args: dict[str, Any]) -> None:
        torch.manual_seed(0)
        ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
        theirs.load_state_dict(ours.state_dict())
        kind = {kind.lower(): kind for kind in dir(torch.optim)}[name]
        more = {"momentum": 0.9} if name == "sgd" else {}
        reference = getattr(torch.optim, kind)(theirs.parameters(), lr=0.03, **more, **args)
        optimizer = optimizer_of(ours, settings(optimizer=name, lr=0.03, optimizer_args=args))
        for _ in range(4):
            inputs = torch.randn(3, 5)
            for model in (ours, theirs):
                model(inputs).square().sum().backward()
            optimizer.step()
            reference.step()
            reference.zero_grad()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other)

    def test_arguments_are_axes_and_none_leave_ids_as_they_were(self) -> None:
        assert "optimizer_args" not in settings().deciding()
        assert not settings(fine_tune="head", optimizer_args={"eps": 1e-6}).fits_in_company
        sweep = load_sweep(
            "part1", values=["stages.grid.space.optimizer_args.betas={grid: [[0.9, 0.999], [0.5, 0.9]]}"]
        )
        trials = make_plan(sweep, "d", {}).trials.values()
        assert len(trials) == 16
        assert {trial.settings.value("optimizer_args.betas") for trial in trials} == {"[0.9, 0.999]", "[0.5, 0.9]"}
        with pytest.raises(SpecError, match=r"optimizer_args.nesterov with optimizer adam"):
            load_sweep("part1", values=["train.optimizer_args={nesterov: true}"])
        with pytest.raises(SpecError, match=r"optimizer_args.betas with optimizer sgd: allowed: dampening, nesterov"):
            load_sweep(
                "part1",
                values=[
                    "stages.grid.space.optimizer={grid: [adam, sgd]}",
                    "stages.grid.space.optimizer_args.betas={grid: [[0.9, 0.999], [0.5, 0.9]]}",
                ],
            )
        both = load_sweep(
            "part1",
            values=[
                "stages.grid.space.optimizer={grid: [adam, sgd]}",
                "stages.grid.space.optimizer_args.betas={grid: [[0.9, 0.99], [0.5, 0.9]], when: {optimizer: [adam]}}",
            ],
        )
        assert len(make_plan(both, "d", {}).trials) == 8 * 3

    @pytest.mark.parametrize("name", [name for name in OTHERS if name != "muon"])
    def test_steps_are_torchs(self, name: str) -> None:
        torch.manual_seed(0)
        ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
        theirs.load_state_dict(ours.state_dict())
        kind = {kind.lower(): kind for kind in dir(torch.optim)}[name]
        reference = getattr(torch.optim, kind)(theirs.parameters(), lr=0.03)
        optimizer = optimizer_of(ours, settings(optimizer=name, lr=0.03))
        for step in range(4):
            inputs = torch.randn(3, 5)
            for model in (ours, theirs):
                model(inputs).square().sum().backward()
            optimizer.set_lr(0.03 * (1 if step < 3 else 0.5))
            reference.param_groups[0]["lr"] = 0.03 * (1 if step < 3 else 0.5)
            optimizer.step()
            reference.step()
            reference.zero_grad()
            for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(one, other)
                assert one.grad is None

    def test_muon_takes_matrices_and_leaves_the_rest_to_adamw(self) -> None:
        conv, linear = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last), nn.Linear(8, 2)
        model = nn.Sequential(conv, nn.Flatten(), linear)
        optimizer = optimizer_of(model, settings(optimizer="muon", lr=0.02), heads=["2"])
        matrix = nn.Parameter(conv.weight.detach().reshape(8, -1).clone())
        others = [
            nn.Parameter(one.detach().clone()) for one in (conv.bias, linear.weight, linear.bias) if one is not None
        ]
        muon = torch.optim.Muon([matrix], lr=0.02, weight_decay=0.0)
        adamw = torch.optim.AdamW(others, lr=0.02, weight_decay=0.0)
        for _ in range(3):
            model(torch.randn(4, 3, 3, 3)).square().sum().backward()
            assert conv.weight.grad is not None
            matrix.grad = conv.weight.grad.reshape(8, -1).clone()
            for one, own in zip(others, (conv.bias, linear.weight, linear.bias), strict=True):
                one.grad = None if own is None or own.grad is None else own.grad.clone()
            optimizer.step()
            muon.step()
            adamw.step()
        torch.testing.assert_close(conv.weight.reshape(8, -1), matrix)
        torch.testing.assert_close(linear.weight, others[1])

    @pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
    def test_the_head_has_a_rate_of_its_own(self, name: str) -> None:
        def change(factor: float) -> dict[str, Tensor]:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
            before = copy.deepcopy(model.state_dict())
            optimizer = optimizer_of(model, settings(optimizer=name, lr=0.01, head_lr_factor=factor), heads=["1"])
            optimizer.set_lr(0.01)
            model(torch.ones(1, 4)).sum().backward()
            optimizer.step()
            return {key: value - before[key] for key, value in model.state_dict().items()}

        plain, faster = change(1.0), change(10.0)
        torch.testing.assert_close(faster["0.weight"], plain["0.weight"])
        torch.testing.assert_close(faster["1.weight"], 10 * plain["1.weight"], rtol=1e-3, atol=1e-6)
