"""Each dataset trains, and is loaded once."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bnbench.assemble import build_run, inputs
from bnbench.assemble.inputs import pack, received
from bnbench.config import schema
from bnbench.data import synthetic as generated
from bnbench.data import torchvision_sets
from bnbench.data.dataset import Dataset
from bnbench.events import Finished
from bnbench.train import train
from tests.assemble.examples import (
    CPU,
    config,
    kinds,
    synthetic,
)


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
            data_seed=0,
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


@pytest.mark.usefixtures("no_dataset_kept")
def test_packed_images_pickle_apart_from_the_rest() -> None:
    """As Ray's object store takes them: buffers without a copy, which nobody may write to."""
    data, other = (synthetic(data_seed=seed) for seed in (0, 1))
    buffers: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(pack(data, lambda _: None), protocol=5, buffer_callback=buffers.append)
    assert len(packed) < 2000
    read_only = [bytes(each) for each in buffers]
    expected = inputs.load_dataset(data, lambda _: None)
    with received([other], [pickle.loads(packed, buffers=read_only)]):
        found = inputs.load_dataset(other, lambda _: None)
        for part, same in ((found.train, expected.train), (found.test, expected.test)):
            assert torch.equal(part.pixels, same.pixels)
            assert torch.equal(part.labels, same.labels)
        assert (found.mean, found.classes) == (expected.mean, expected.classes)
