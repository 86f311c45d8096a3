"""Every kind is built and trains, seeds pair setups, evaluations have their sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bnbench.assemble import Facts, build_run, inputs, resolve_device
from bnbench.assemble.inputs import evaluation_steps, generator
from bnbench.config import schema
from bnbench.data import synthetic as generated
from bnbench.data import torchvision_sets
from bnbench.data.dataset import Dataset
from bnbench.errors import ConfigError, UsageError
from bnbench.events import Evaluation, Finished, Moment, Step
from bnbench.norms.batch import BatchNorm, GhostBatchNorm
from bnbench.norms.group import GroupNorm, LayerNorm
from bnbench.train import Run, train
from tests.assemble.examples import (
    CPU,
    EXAMPLES,
    SMALL,
    built,
    config,
    epoch,
    kinds,
    smooth,
    synthetic,
)

# --- every kind ---------------------------------------------------------------------------


UNIONS = {"norm": schema.NormConfig, "model": schema.ModelConfig, "optim": schema.OptimConfig}


@pytest.mark.parametrize("block", UNIONS)
def test_every_kind_has_an_example(block: str) -> None:
    assert {type(example) for example in EXAMPLES[block]} == set(kinds(UNIONS[block]))


def words() -> dict[tuple[str, str], list[str]]:
    """Every word that a key of a closed set may be, by (block, key)."""
    found = {}
    for block, kind in (
        ("model", schema.PlainModel),
        ("optim", schema.SGDConfig),
        ("compute", schema.ComputeConfig),
        ("data", schema.SyntheticData),
    ):
        for key, field in kind.model_fields.items():
            choices = [word for word in get_args(field.annotation) if isinstance(word, str)]
            if len(choices) > 1:
                found[block, key] = choices
    return found


def test_words_are_found_in_each_block() -> None:
    assert {block for block, _ in words()} == {"model", "optim", "compute", "data"}


def trains(config: schema.RunConfig) -> list[Step]:
    """Trains to the end; the weights have moved and every number is finite."""
    run = built(config)
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    moments = [each for each in train(run) if isinstance(each, Moment)]
    assert moments[-1].step == run.total_steps == 2
    facts = [fact for moment in moments for fact in moment.facts]
    assert isinstance(facts[-1], Finished)
    steps = [fact for fact in facts if isinstance(fact, Step)]
    assert len(steps) == 2
    evaluations = [fact for fact in facts if isinstance(fact, Evaluation)]
    assert Counter((fact.split, fact.stats) for fact in evaluations) == {
        (split, stats): 1
        for split in ("train", "val", "test")
        for stats in ("running", "batch", "population")
    }
    assert all(np.isfinite([fact.loss, fact.accuracy]).all() for fact in evaluations)
    for (name, parameter), old in zip(run.model.named_parameters(), before, strict=True):
        assert parameter.isfinite().all(), name
        assert not torch.equal(parameter, old), name
    return steps


@pytest.mark.parametrize("norm", EXAMPLES["norm"], ids=repr)
def test_every_norm_trains(norm: schema.Block) -> None:
    trains(config(norm=norm, model=smooth(SMALL)))


@pytest.mark.parametrize("norm", [schema.NoNorm(kind="none"), schema.BatchNormConfig()], ids=repr)
@pytest.mark.parametrize("model", EXAMPLES["model"], ids=repr)
def test_every_model_trains(model: schema.Block, norm: schema.Block) -> None:
    # At this rate the deep ones do not diverge without normalization either.
    trains(config(norm=norm, model=smooth(model), optim=schema.SGDConfig(lr=1e-3)))


@pytest.mark.parametrize("optim", EXAMPLES["optim"], ids=repr)
def test_every_optimizer_trains(optim: schema.Block) -> None:
    trains(config(optim=optim, model=smooth(SMALL)))


def test_only_the_norms_are_trained_when_asked() -> None:
    run = built(config(optim=schema.SGDConfig(train_only="norm")))
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    list(train(run))
    moved = {
        name for name, value in run.model.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved == {name for name in before if ".norm." in name}
    assert len(moved) == 4


@pytest.mark.parametrize(("block", "key"), list(words()))
def test_every_word_trains_and_makes_a_difference(block: str, key: str) -> None:
    """A word that changed nothing would have been built as another one."""
    parts = {
        "model": schema.PlainModel(widths=(4, 8), blocks=1, activation="sigmoid"),
        # A drop half-way and a base that differs, so that schedules and rules do by step two.
        "optim": schema.SGDConfig(warmup=0.0, base_batch_size=64),
        "compute": schema.ComputeConfig(),
        "data": synthetic(),
    }
    results = set()
    for word in words()[block, key]:
        changed = parts[block].model_copy(update={key: word})
        steps = trains(config(**{**parts, block: changed}))
        results.add(tuple((step.loss, step.lr) for step in steps))
    assert len(results) == len(words()[block, key])


def norm_layers(run: Run) -> list[nn.Module]:
    return [module for module in run.model.modules() if isinstance(module, GroupNorm | BatchNorm)]


def test_norms_are_built_with_the_values_of_the_configuration() -> None:
    batch = norm_layers(
        built(config(norm=schema.BatchNormConfig(momentum=0.3, eps=0.5, affine=False)))
    )
    assert [type(layer) for layer in batch] == [BatchNorm, BatchNorm]
    for layer in batch:
        assert isinstance(layer, BatchNorm)
        assert (layer.momentum, layer.eps, layer.affine) == (0.3, 0.5, False)
    ghost = norm_layers(
        built(config(norm=schema.BatchNormConfig(batch_size=2, momentum=None, eps=0.25)))
    )
    for layer in ghost:
        assert isinstance(layer, GhostBatchNorm)
        assert (layer.batch_size, layer.momentum, layer.eps, layer.affine) == (2, None, 0.25, True)
    group = norm_layers(built(config(norm=schema.GroupNormConfig(kind="group", groups=2, eps=0.5))))
    assert [type(layer) for layer in group] == [GroupNorm, GroupNorm]
    for layer in group:
        assert isinstance(layer, GroupNorm)
        assert (layer.groups, layer.eps, layer.affine) == (2, 0.5, True)
    layer_norm = norm_layers(built(config(norm=schema.LayerNormConfig(kind="layer", affine=False))))
    assert [type(layer) for layer in layer_norm] == [LayerNorm, LayerNorm]
    assert not any(list(layer.parameters()) for layer in layer_norm)
    assert norm_layers(built(config(norm=schema.NoNorm(kind="none")))) == []


def test_the_optimizer_and_the_rate_are_those_of_the_configuration() -> None:
    run = built(
        config(
            optim=schema.SGDConfig(
                lr=0.5,
                momentum=0.75,
                weight_decay=0.125,
                lr_rule="linear",
                base_batch_size=4,
                schedule="step",
                warmup=0.2,
                milestones=(0.5,),
                decay=0.25,
            ),
            train=schema.TrainConfig(steps=10),
        )
    )
    assert isinstance(run.optimizer, torch.optim.SGD)
    assert [group["momentum"] for group in run.optimizer.param_groups] == [0.75, 0.75]
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.125, 0.0]
    # 0.5 · 8/4 = 1 at the peak, after two steps of warm-up; a quarter from half-way on.
    assert [run.lr_at(step) for step in range(10)] == pytest.approx([0.5, *[1.0] * 4, *[0.25] * 5])
    adam = built(config(optim=schema.AdamWConfig(kind="adamw", betas=(0.5, 0.75), eps=0.1)))
    assert isinstance(adam.optimizer, torch.optim.AdamW)
    for group in adam.optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.5, 0.75), 0.1)


def test_divergence_is_that_of_the_configuration() -> None:
    run = built(
        config(
            train=schema.TrainConfig(steps=40, diverged_above=2.5, log_every=3),
            optim=schema.SGDConfig(warmup=0.1),
        )
    )
    assert run.log_every == 3
    limit = 2.5 * 1.0986122886681098  # ln 3, for three classes
    assert run.divergence.reason(4, limit * 2) is None  # 4 steps of warm-up
    assert run.divergence.reason(5, limit * 0.999) is None
    assert run.divergence.reason(5, limit * 1.001) == "loss above 2.5·ln(classes)"


# --- datasets -----------------------------------------------------------------------------


@pytest.fixture
def no_dataset_kept() -> Iterator[None]:
    inputs._loaded.clear()
    yield
    inputs._loaded.clear()


def datasets(folder: Path) -> list[schema.DataConfig]:
    return [
        schema.Fashion12kData(train_size=30, validation_size=20, batch_size=8),
        schema.TorchvisionData(dataset="cifar10", validation_size=12, batch_size=8, root="/x"),
        schema.ImageFolderData(
            dataset="image-folder",
            root=str(folder),
            image_size=8,
            validation_size=4,
            batch_size=4,
        ),
        synthetic(),
        schema.CustomData(
            dataset="custom", target=f"{folder}/own.py:load", validation_size=4, batch_size=4
        ),
    ]


OWN = """\
import numpy as np


def load():
    part = np.arange(12 * 5 * 64, dtype=np.float32).reshape(12, 5, 8, 8), np.arange(12) % 3
    return part, part
"""


@pytest.mark.usefixtures("no_dataset_kept")
def test_every_dataset_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for i in range(6):
                pixels = random.integers(0, 256, (9, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / label / f"{i}.png")

    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[tuple[object, ...]] = []

    def fetched(name: str, *, root: Path | None, download: bool, **_: object) -> Dataset:
        asked.append((name, root, download))
        return generated.generate_synthetic(
            train_images=40,
            test_images=10,
            classes=10,
            channels=3,
            image_size=8,
            noise=0.5,
            seed=0,
        )

    # tests/data look into the real one.
    monkeypatch.setattr(torchvision_sets, "load_torchvision", fetched)
    configs = datasets(tmp_path)
    assert {type(one) for one in configs} == set(kinds(schema.DataConfig))
    assert len(kinds(schema.DataConfig)) == 5
    channels = []
    for one in configs:
        run, _ = build_run(
            config(
                data=one,
                model=schema.PlainModel(widths=(4, 8), blocks=1, activation="sigmoid"),
                train=schema.TrainConfig(steps=2, evaluations=1, evaluation_images=8),
            ),
            CPU,
        )
        channels.append(run.batch_at(0)[0].shape[1])
        run.evaluate_last = run.evaluate  # 2,000 test images would take a second
        assert list(train(run))[-1].facts[-1] == Finished()  # type: ignore[union-attr]
    assert channels == [1, 3, 3, 2, 5]
    assert asked == [("cifar10", Path("/x"), True)]


@pytest.mark.usefixtures("no_dataset_kept")
def test_a_dataset_is_loaded_once_whatever_is_done_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads: list[dict[str, Any]] = []
    real = generated.generate_synthetic

    def counted(**options: Any) -> Dataset:
        loads.append(options)
        return real(**options)

    monkeypatch.setattr(generated, "generate_synthetic", counted)
    for changed in (
        {"batch_size": 4},
        {"validation_size": 6},
        {"augment": "flip-crop"},
        {"train_size": 24},
    ):
        build_run(config(data=synthetic(**changed)), CPU)
    assert len(loads) == 1
    build_run(config(data=synthetic(data_seed=1)), CPU)
    assert len(loads) == 2


# --- facts --------------------------------------------------------------------------------


def test_facts_by_hand() -> None:
    """60 training images less 12; batches of 7. Plain, 2 → 4 → 8 channels, after: with biases."""
    _, facts = build_run(
        config(
            data=synthetic(batch_size=7),
            norm=schema.BatchNormConfig(placement="after"),
            train=schema.TrainConfig(epochs=2.5),
        ),
        CPU,
    )
    convolutions = 2 * 4 * 9 + 4 + 4 * 8 * 9 + 8
    assert facts == Facts(
        parameters=convolutions + 2 * (4 + 8) + 8 * 3 + 3,
        trainable_parameters=convolutions + 2 * (4 + 8) + 8 * 3 + 3,
        normalization_layers=2,
        train_images=48,
        validation_images=12,
        test_images=14,
        classes=("class 0", "class 1", "class 2"),
        steps_per_epoch=6,
        total_steps=15,
    )
    _, facts = build_run(
        config(
            data=synthetic(batch_size=7, drop_last=False, train_size=30),
            norm=schema.NoNorm(kind="none"),
            train=schema.TrainConfig(epochs=2),
        ),
        CPU,
    )
    assert (facts.normalization_layers, facts.train_images) == (0, 30)
    assert (facts.steps_per_epoch, facts.total_steps) == (5, 10)


def test_evaluations_are_evenly_spaced_and_end_at_the_end() -> None:
    assert evaluation_steps(100, 4) == {25, 50, 75, 100}
    assert evaluation_steps(10, 3) == {3, 7, 10}
    assert evaluation_steps(423, 1) == {423}
    assert evaluation_steps(3, 10) == {1, 2, 3}  # more evaluations than steps: every step
    for total in range(1, 60):
        for evaluations in range(1, 80):
            found = sorted(evaluation_steps(total, evaluations))
            assert found[-1] == total
            assert found[0] >= 1
            if evaluations <= total:
                assert len(found) == evaluations
                gaps = [b - a for a, b in zip([0, *found[:-1]], found, strict=True)]
                assert max(gaps) - min(gaps) <= 2
            else:
                assert found == list(range(1, total + 1))


# --- randomness ---------------------------------------------------------------------------


def test_no_two_purposes_or_seeds_share_random_numbers() -> None:
    """The streams themselves: torch's CPU generator keeps 32 bits of a seed."""
    purposes: list[tuple[object, ...]] = [
        *((word,) for word in ("split", "order", "augment", "init", "layers", "evaluation")),
        *((word, i) for word in ("order", "augment", "layers") for i in range(100)),
        *(("evaluation", word) for word in ("train", "val", "test", "population")),
        *(("init", f"stage{s}.block{b}.conv.weight") for s in (1, 2) for b in (1, 2)),
    ]
    seeds = range(12)
    firsts = Counter(
        tuple(torch.randint(2**62, (2,), generator=generator(seed, *purpose)).tolist())
        for seed in seeds
        for purpose in purposes
    )
    assert len(firsts) == len(purposes) * len(seeds)
    for values in zip(*firsts, strict=True):
        assert len(set(values)) == len(purposes) * len(seeds)


def test_seeds_are_derived_as_they_always_were() -> None:
    """Written down: another derivation would silently make every stored run another one."""
    # blake2b of "0/order/3", 8 bytes, halved; worked out with hashlib alone.
    assert inputs.derived(0, "order", 3) == 228_291_028_133_782_092
    draws = [torch.rand(4, generator=generator(0, "order", 3)) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])


def test_dropout_draws_what_seed_and_step_say_and_nothing_else() -> None:
    run, other = built(config()), built(config(seed=1))

    def drawn(run: Run, step: int) -> list[float]:
        torch.manual_seed(len(draws))  # whatever was drawn before
        run.reseed(step)
        return torch.rand(3).tolist()

    draws: list[list[float]] = []
    for one, step in ((run, 0), (run, 1), (other, 0), (run, 0)):
        draws.append(drawn(one, step))
    assert draws[3] == draws[0]
    assert draws[1] != draws[0] != draws[2] != draws[1]


SETUPS: list[dict[str, Any]] = [
    {},
    {"norm": schema.NoNorm(kind="none")},
    {"norm": schema.BatchNormConfig(batch_size=2, placement="after")},
    {"norm": schema.GroupNormConfig(kind="group", groups=4)},
    {"optim": schema.AdamWConfig(kind="adamw")},
    {"model": schema.PlainModel(widths=(4, 8), blocks=1, activation="tanh", dropout=0.5)},
    {"data": synthetic(eval_batch_size=3)},
]


def test_setups_of_one_seed_share_images_order_and_weights() -> None:
    reference = built(config())
    images, labels = epoch(reference, 12)  # two epochs of six
    assert not torch.equal(images[:48], images[48:])
    weights = dict(reference.model.named_parameters())
    shared = 0
    for setup in SETUPS:
        torch.manual_seed(len(setup) + shared)
        run = built(config(**setup))
        theirs = epoch(run, 12)
        assert torch.equal(theirs[0], images)
        assert torch.equal(theirs[1], labels)
        for name, parameter in run.model.named_parameters():
            if name.endswith("conv.weight") or name == "head.weight":
                assert torch.equal(parameter, weights[name])
                shared += 1
    assert shared == 3 * len(SETUPS)


def test_batch_sizes_cut_one_order() -> None:
    images, _ = epoch(built(config()), 6)
    for batch_size, steps in ((2, 24), (4, 12), (16, 3), (48, 1)):
        found, _ = epoch(built(config(data=synthetic(batch_size=batch_size))), steps)
        assert torch.equal(found, images)
    # 48 = 4·11 + 4: only the dropped tail differs; the next epoch has an order of its own.
    found, _ = epoch(built(config(data=synthetic(batch_size=11))), 4)
    assert torch.equal(found, images[:44])


def test_other_seeds_have_other_images_orders_and_weights() -> None:
    runs = [built(config(seed=seed)) for seed in range(3)]
    kept = [{tuple(x.flatten().tolist()) for x in epoch(run, 6)[0]} for run in runs]
    firsts = [run.batch_at(0)[0] for run in runs]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert kept[one] != kept[other]  # another split …
        assert not torch.equal(firsts[one], firsts[other])
        for name in ("stage1.block1.conv.weight", "head.weight"):
            a, b = (runs[i].model.get_parameter(name) for i in (one, other))
            assert not (a == b).any()


# --- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"norm": schema.GroupNormConfig(kind="group", groups=3)},
            "setup arm: norm.groups: 4 channels do not split into 3 groups (model.widths)",
        ),
        (
            {"data": synthetic(batch_size=49)},
            "setup arm: a batch of 49 is more than the 48 training images",
        ),
        (
            {"data": synthetic(validation_size=60)},
            "setup arm: 60 validation images leave none of 60 to train on",
        ),
        (
            {"data": synthetic(train_size=50)},
            "setup arm: 50 training images are more than the 48 that "
            "12 validation images leave of 60",
        ),
    ],
)
def test_what_a_room_refuses_is_a_fault_of_the_setup(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_run(config(**parts), CPU)
    assert str(caught.value) == message
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.exit_code == 2


# --- devices ------------------------------------------------------------------------------


def machine(monkeypatch: pytest.MonkeyPatch, *, gpus: int, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("gpus", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, False, "auto", "cuda:0"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda", "cuda:0"),
        (2, False, "cuda:0", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_devices_that_there_are(
    gpus: int, mps: bool, name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpus=gpus, mps=mps)
    assert str(resolve_device(name)) == expected


def test_workers_take_gpus_in_turn_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=3)
    taken = [str(resolve_device("cuda", worker)) for worker in range(5)]
    assert taken == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    for name, expected in (("cuda:0", "cuda:0"), ("cuda:2", "cuda:2"), ("auto", "cuda:0")):
        assert str(resolve_device(name, 1)) == expected


@pytest.mark.parametrize(
    ("gpus", "name"),
    [
        (0, "cuda"),
        (0, "cuda:0"),
        (1, "cuda:1"),
        (1, "cuda:200"),  # torch.device reads the index as a signed byte: −56 …
        (1, "cuda:256"),  # … and 0
        (1, "mps"),
    ],
)
def test_devices_that_there_are_not(gpus: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=gpus)
    with pytest.raises(UsageError) as caught:
        resolve_device(name)
    assert str(caught.value) == (
        f"there is no device {name} on this machine\n  use --device cpu, or auto for what there is"
    )


@pytest.mark.parametrize("name", ["xpu", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1_0", "cpu:²"])
def test_what_is_no_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=1)
    with pytest.raises(UsageError, match="is not a device"):
        resolve_device(name)


def test_precision_is_that_of_the_configuration() -> None:
    dtypes: list[torch.dtype] = []

    def see(_: nn.Module, __: object, y: Tensor) -> None:
        dtypes.append(y.dtype)

    for precision in ("fp32", "bf16"):
        run = built(config(compute=schema.ComputeConfig(precision=precision)))
        run.model.get_submodule("stage1.block1.conv").register_forward_hook(see)
        list(train(run))
        assert {p.dtype for p in run.model.parameters()} == {torch.float32}
        expected = torch.float32 if precision == "fp32" else torch.bfloat16
        assert set(dtypes) == {expected}  # in training and in the evaluations alike
        dtypes.clear()
