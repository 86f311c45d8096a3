"""Every BatchNorm layer of torch, and the outputs that models give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnbench
from bnbench.diagnosis.answers import place_of
from tests.diagnosis.patients import Pairs, loader, norms, trained

CLASSES = 4


def clusters(*shape: int) -> tuple[Tensor, Tensor]:
    """Inputs (512, 6, *shape) around a center for each class, off zero, and labels."""
    random = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (512,), generator=random)
    centers = torch.randn(CLASSES, 6, generator=random)
    noise = torch.randn(512, 6, *shape, generator=random)
    return (centers[y].view(512, 6, *(1 for _ in shape)) + 0.5 * noise) * 3 + 2, y


def learned(model: nn.Module, x: Tensor, y: Tensor) -> Pairs:
    """Train it a little; its loader."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for k in range(80):
        part = slice(32 * (k % 16), 32 * (k % 16) + 32)
        loss = F.cross_entropy(model(x[part]), y[part])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return DataLoader(TensorDataset(x, y), batch_size=32)


def of_features(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), norm, nn.ReLU(), nn.Linear(8, CLASSES))


def of_sequences(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv1d(6, 8, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(24, CLASSES))


def of_volumes(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv3d(6, 8, 2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES))


def of_images(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(6, 8, 2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(32, CLASSES))


@pytest.mark.parametrize(
    ("make", "norm", "shape"),
    [
        (of_features, nn.BatchNorm1d, ()),
        (of_sequences, nn.BatchNorm1d, (5,)),
        (of_images, nn.BatchNorm2d, (3, 3)),
        (of_volumes, nn.BatchNorm3d, (3, 3, 3)),
        (of_features, nn.SyncBatchNorm, ()),
        (of_images, nn.SyncBatchNorm, (3, 3)),
    ],
)
def test_every_rank(
    make: Callable[[nn.Module], nn.Module], norm: type[nn.BatchNorm2d], shape: tuple[int, ...]
) -> None:
    x, y = clusters(*shape)
    model = make(norm(8))
    source = learned(model, x, y)
    found = bnbench.diagnose(model, source)
    assert found.healthy
    assert [each.kind for each in found.layers] == [norm.__name__]
    assert found.reading("batch").loss == pytest.approx(found.reading("running").loss, abs=0.05)
    for each in norms(model).values():
        each.reset_running_stats()
    assert bnbench.diagnose(model, source).findings[0].name == "never-updated"


def test_a_batch_norm_layer_alone() -> None:
    x, y = clusters()
    model = nn.BatchNorm1d(6)
    found = bnbench.diagnose(model, DataLoader(TensorDataset(x, y), batch_size=32))
    assert found.findings[0].name == "never-updated"
    fixed = found.recalibrated(model.state_dict())
    assert set(fixed) == set(model.state_dict())
    torch.testing.assert_close(fixed["running_mean"], x.mean(0))
    torch.testing.assert_close(fixed["running_var"], x.var(0))


@dataclass
class Output:
    """As transformers' models give it."""

    logits: Tensor


class Gives(nn.Module):
    """A network that wraps its logits up."""

    def __init__(self, how: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner = trained()
        self.how = how

    def forward(self, x: Tensor) -> object:
        return self.how(self.inner(x))


@pytest.mark.parametrize(
    "how",
    [
        lambda logits: (logits, None),
        lambda logits: [logits, logits * 0],
        lambda logits: (logits.mean(), logits.repeat(1, 3), logits),
        lambda logits: {"logits": logits},
        Output,
    ],
    ids=["tuple", "list", "after a loss and features", "dict", "attribute"],
)
def test_outputs_that_hold_logits(how: Callable[[Tensor], object]) -> None:
    plain = bnbench.diagnose(trained(), loader(count=256), images=256)
    found = bnbench.diagnose(Gives(how), loader(count=256), images=256)
    assert [each.loss for each in found.readings] == [each.loss for each in plain.readings]
    assert {each.name for each in found.layers} == {"inner.1", "inner.4", "inner.7"}
    third = isinstance(output := how(torch.ones(2, 10)), tuple) and len(output) == 3
    said = [each for each in found.notes if each.startswith("part 3 of the output is taken")]
    assert len(said) == third


@pytest.mark.parametrize(
    ("sizes", "labels", "place"),
    [
        ((10, 8), range(8), 0),  # the classes 8 and 9 were not seen
        ((512, 10), range(9), 1),
        ((10, 512), range(9), 0),
        ((16, 10), range(10), 1),
        ((512, 256), range(256), 1),  # of images with a label each, 255 is a class
        ((8, 10), range(10), 1),
        ((8, 9), range(10), 0),
        ((64, 1), (0, 1), 1),
    ],
)
def test_which_part_of_an_output_is_the_answer(
    sizes: tuple[int, int], labels: Sequence[int], place: int
) -> None:
    every = torch.tensor(labels)
    output = tuple(torch.ones(4, size) for size in sizes)
    assert place_of(output, every[:1].expand(4), [every]) == (place, False)


def test_the_labels_of_all_batches_say_which_part_it_is() -> None:
    output = torch.ones(2, 64, 3, 3), torch.ones(2, 21, 3, 3)
    few, all_of = torch.tensor([[[0, 7, 255]]]).expand(2, 3, 3), torch.arange(21).view(1, 3, 7)
    assert place_of(output, few, [few]) == (0, True)
    assert place_of(output, few, [few, all_of]) == (1, False)


def test_batches_with_more_than_inputs_and_labels() -> None:
    plain = bnbench.diagnose(trained(), loader(count=256), images=256)
    longer = [(x, y.int(), "name", 3) for x, y in loader(count=256)]
    found = bnbench.diagnose(trained(), longer, images=256)
    assert found.readings == plain.readings


def test_a_layer_that_is_never_reached_is_said() -> None:
    model = trained()
    model.add_module("spare", nn.Identity())
    model.get_submodule("spare").add_module("norm", nn.BatchNorm2d(3))
    found = bnbench.diagnose(model, loader(count=256), images=256)
    assert found.healthy
    assert any("does not reach spare.norm" in each for each in found.notes)
    assert set(found.recalibrated(model.state_dict())) == set(model.state_dict())


def test_a_wrapped_model() -> None:
    model = nn.DataParallel(trained())
    found = bnbench.diagnose(model, loader(count=256), images=256)
    assert {each.name for each in found.layers} == {"module.1", "module.4", "module.7"}
    assert found.healthy


@pytest.mark.slow
def test_a_compiled_model_is_diagnosed_as_the_one_behind_it() -> None:
    plain = bnbench.diagnose(trained(), loader(count=256), images=256)
    compiled: nn.Module = torch.compile(trained())  # type: ignore[assignment]
    found = bnbench.diagnose(compiled, loader(count=256), images=256)
    assert found.readings == plain.readings
    assert {each.name for each in found.layers} == {"1", "4", "7"}


def test_batch_sizes_that_are_asked_for() -> None:
    found = bnbench.diagnose(trained(), loader(count=256), batch_sizes=[8, 32, 999], images=256)
    sizes = {each.batch_size for each in found.readings if each.statistics == "population"}
    assert sizes == {8, 32, 64}
    assert any("999" in each for each in found.notes)
    with pytest.raises(KeyError, match="no reading of eval images"):
        found.reading("running", "eval")
