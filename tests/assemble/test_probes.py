"""Probes of whole runs: each is built for all norms and networks and leaves the run alone."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from bnbench.assemble import build_run
from bnbench.assemble.probes import read_after
from bnbench.config import schema
from bnbench.data import batches as data_batches
from bnbench.data.dataset import Images
from bnbench.events import Fact, Histogram, Moment, Reading
from bnbench.train import Run, train
from tests.assemble.examples import EXAMPLES, config, smooth, synthetic
from tests.runs import all_probes

CPU = torch.device("cpu")
PACKAGE = Path(__file__).resolve().parents[2] / "bnbench"


def probed(**parts: Any) -> schema.RunConfig:
    """Two steps of a small network; probes read before the first and after the last."""
    return config(
        **{
            "probes": all_probes(),
            "train": schema.TrainConfig(steps=2, evaluations=1, log_every=1),
            "optim": schema.SGDConfig(lr=1e-3),
            **parts,
        }
    )


Stated = list[tuple[int, Fact]]
"""Facts with the steps after which they were stated."""


def stated(run: Run) -> Stated:
    moments = [each for each in train(run) if isinstance(each, Moment)]
    return [(moment.step, fact) for moment in moments for fact in moment.facts]


def facts_of(settings: schema.RunConfig) -> tuple[Stated, dict[str, Tensor], list[str]]:
    """What a run states; its state at the end; what it announced."""
    said: list[str] = []
    run, _ = build_run(settings, CPU, announce=said.append)
    facts = stated(run)
    return facts, dict(run.model.state_dict()), said


def readings(facts: Stated) -> list[Reading | Histogram]:
    return [fact for _, fact in facts if isinstance(fact, Reading | Histogram)]


def numbers(facts: Stated) -> list[Reading]:
    return [fact for _, fact in facts if isinstance(fact, Reading)]


def test_every_probe_is_configured_built_and_tested() -> None:
    names = set(schema.ProbesConfig.model_fields)
    assert len(names) == len(get_args(schema.ProbeConfig))
    assert {type(each) for each in all_probes().chosen().values()} == set(
        get_args(schema.ProbeConfig)
    )
    assert names == set(build_run(probed(), CPU)[0].probes)
    for name in names:
        assert (PACKAGE / "probes" / f"{name}.py").is_file()
        assert (PACKAGE.parent / "tests" / "probes" / f"test_{name}.py").is_file()


@pytest.mark.parametrize("norm", EXAMPLES["norm"], ids=repr)
def test_every_norm_is_probed_without_a_trace(norm: schema.Block) -> None:
    settings = probed(norm=norm, data=synthetic(augment="flip-crop"))
    _same_with_and_without(settings)


NETWORKS = [
    pytest.param(
        model,
        marks=pytest.mark.slow
        if isinstance(model, schema.TorchvisionModel | schema.TimmModel)
        else (),
    )
    for model in EXAMPLES["model"]
]


@pytest.mark.parametrize("model", NETWORKS, ids=repr)
def test_every_network_is_probed_without_a_trace(model: schema.Block) -> None:
    _same_with_and_without(probed(model=smooth(model)))
    if isinstance(model, schema.TorchvisionModel):
        return  # large; timm's has its normalization exchanged by the same code
    facts, _, _ = facts_of(probed(model=smooth(model), norm=schema.NoNorm(kind="none")))
    assert {fact.probe for fact in readings(facts)} == set(schema.ProbesConfig.model_fields)


def _same_with_and_without(settings: schema.RunConfig) -> None:
    facts, state, said = facts_of(settings)
    others, plain, _ = facts_of(settings.model_copy(update={"probes": schema.ProbesConfig()}))
    assert state.keys() == plain.keys()
    assert all(torch.equal(state[name], plain[name]) for name in state)
    assert [each for each in facts if not isinstance(each[1], Reading | Histogram)] == others
    assert said == []
    assert {
        (fact.probe, step) for step, fact in facts if isinstance(fact, Reading | Histogram)
    } == {
        (name, step)
        for name in schema.ProbesConfig.model_fields
        for step in ((2,) if name == "shifted_images" else (0, 2))
    }
    for fact in numbers(facts):
        censored = fact.name == "smallest_exploding"  # no step of the grid may explode
        assert isfinite(fact.value) or censored, fact


@pytest.mark.parametrize(
    "norm",
    [
        schema.NoNorm(kind="none"),
        schema.GroupNormConfig(kind="group", groups=2),
        schema.LayerNormConfig(kind="layer"),
        schema.InstanceNormConfig(kind="instance"),
    ],
    ids=repr,
)
def test_controls_read_exactly_zero(norm: schema.Block) -> None:
    found = numbers(facts_of(probed(norm=norm))[0])
    zeros = {"gap_by_layer", "batch_noise", "running_error"}
    assert {fact.value for fact in found if fact.probe in zeros} == {0.0}
    parts = [fact for fact in found if fact.name.endswith(("training_noise", "inconsistency"))]
    assert {fact.value for fact in parts} == {0.0}
    assert len(parts) == 2 * 4
    assert {fact.value for fact in found if fact.name.endswith("_gain")} == {0.0}


def test_setups_of_a_seed_are_probed_on_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    chunks = data_batches.chunks

    def watched(images: Images, indices: Tensor, **how: Any) -> Any:
        seen.append(images.pixels[indices].double().mean((1, 2, 3)))
        return chunks(images, indices, **how)

    monkeypatch.setattr(data_batches, "chunks", watched)

    def looked_at(norm: schema.Block, seed: int) -> dict[str, list[float]]:
        found = {}
        run, _ = build_run(probed(norm=norm, seed=seed), CPU)
        batches_of_gradients = torch.cat(seen).tolist()  # drawn once, when the run is built
        for name, probe in run.probes.items():
            seen.clear()
            probe.read(0)
            found[name] = torch.cat(seen).tolist() if seen else batches_of_gradients
        seen.clear()
        return found

    one, same = (
        looked_at(norm, 0)
        for norm in (schema.BatchNormConfig(), schema.NoisyNormConfig(kind="noisy"))
    )
    other, none = looked_at(schema.BatchNormConfig(), 1), looked_at(schema.NoNorm(kind="none"), 0)
    assert one == same
    for name in schema.ProbesConfig.model_fields:
        assert one[name] != other[name]
        statistics = "running_error", "gap_by_layer", "decomposition", "batch_noise"
        if name not in (*statistics, "shifted_images"):
            assert one[name] == none[name]


def test_a_probe_does_not_depend_on_the_others() -> None:
    every = readings(facts_of(probed())[0])
    for name in schema.ProbesConfig.model_fields:
        alone = schema.ProbesConfig.model_validate({name: getattr(all_probes(), name).model_dump()})
        found = readings(facts_of(probed(probes=alone))[0])
        assert found == [fact for fact in every if fact.probe == name]


# --- what cannot be measured ----------------------------------------------------------------


def built(**parts: Any) -> tuple[Run, list[str]]:
    said: list[str] = []
    return build_run(probed(**parts), CPU, announce=said.append)[0], said


def test_without_trained_weights_three_are_left_out() -> None:
    run, said = built(optim=schema.SGDConfig(lr=1e-3, train_only="norm"))
    assert said == [
        f"note: probes.{name} is left out of setup arm: no convolution or linear layer of the "
        "network is trained"
        for name in ("gradient_shift", "landscape", "effective_lr")
    ]
    assert len(run.probes) == 8
    assert readings(stated(run))


def test_a_network_that_cannot_be_copied_keeps_the_other_probes(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from tests.custom_layers import TwoLayers\n"
        "class Stubborn(TwoLayers):\n"
        "    def __deepcopy__(self, memo):\n"
        "        raise TypeError('there is only one of me')\n"
    )
    run, said = built(model=schema.CustomModel(kind="custom", target=f"{path}:Stubborn"))
    assert len(said) == 6
    assert said[0] == (
        "note: probes.activation_drift is left out of setup arm: the network cannot be copied "
        "(TypeError: there is only one of me)"
    )
    assert set(run.probes) == {
        *("running_error", "gap_by_layer", "decomposition", "batch_noise", "shifted_images")
    }
    assert readings(stated(run))


def test_a_batch_of_nearly_everything_leaves_no_other_company() -> None:
    images = synthetic(batch_size=47)  # of 48
    run, said = built(data=images)
    assert said == [
        "note: probes.batch_noise is left out of setup arm: a batch of 47 of 48 training images "
        "leaves no other images to draw"
    ]
    control, nothing = built(data=images, norm=schema.NoNorm(kind="none"))
    assert nothing == []
    assert set(control.probes) - set(run.probes) == {"batch_noise"}


def test_images_that_are_not_there_are_not_missed() -> None:
    """Defaults ask for 1,024 of 48 images."""
    defaults = schema.ProbesConfig.model_validate(
        dict.fromkeys(schema.ProbesConfig.model_fields, True)
    )
    run, said = built(probes=defaults, model=schema.MLPModel(kind="mlp", widths=(4,)))
    assert said == []
    assert {fact.probe for fact in readings(stated(run))} == set(schema.ProbesConfig.model_fields)


def test_a_norm_of_the_user_s_own_is_probed_by_its_name() -> None:
    custom = next(norm for norm in EXAMPLES["norm"] if isinstance(norm, schema.CustomNormConfig))
    found = readings(facts_of(probed(norm=custom))[0])
    layers = {fact.layer for fact in found if fact.probe == "activation_drift"}
    assert any(layer.endswith(".norm") for layer in layers)


# --- when -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "evaluations", "every", "steps"),
    [
        (100, 5, 1, {0, 20, 40, 60, 80, 100}),
        (100, 5, 2, {0, 40, 80, 100}),
        (100, 5, 5, {0, 100}),
        (100, 5, 9, {0, 100}),
        (100, 4, 2, {0, 50, 100}),
        (3, 10, 2, {0, 2, 3}),
        (1, 1, 1, {0, 1}),
    ],
)
def test_cadence(total: int, evaluations: int, every: int, steps: set[int]) -> None:
    assert read_after(total, evaluations, every) == steps
