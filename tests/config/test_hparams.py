"""A run as a row of a table, and the cell that its seeds share."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnbench.config import identity, schema


def config(**changes: object) -> schema.RunConfig:
    """A run of synthetic images."""
    values = {"experiment": "x", "setup": "bn", "data": schema.SyntheticData(dataset="synthetic")}
    return schema.RunConfig.model_validate(values | changes)


def test_a_row_has_what_decides_the_numbers_and_no_seed() -> None:
    found = identity.hparams(config(seed=3))
    assert found["setup"] == "bn"
    assert found["norm.kind"] == "batch"
    assert found["norm.affine"] is True
    assert found["optim.lr"] == 0.1
    assert found["model.widths"] == "8-16-32"
    assert "norm.batch_size" not in found, "it is not set"
    for key in ("seed", "experiment", "swept", "train.log_every", "compute.device", "data.root"):
        assert key not in found
    assert found == identity.hparams(config(seed=4, compute={"device": "cpu"}))
    assert {type(value) for value in found.values()} <= {bool, int, float, str}


def test_options_of_a_custom_layer_are_columns_and_its_folder_is_not(tmp_path: Path) -> None:
    target = f"{tmp_path}/my_norm.py:PeakNorm"
    norm = schema.CustomNormConfig(
        kind="custom", target=target, options={"eps": 0.5, "deep": [1, 2]}
    )
    found = identity.hparams(config(norm=norm))
    assert found["norm.target"] == "my_norm.py:PeakNorm"
    assert found["norm.options.eps"] == 0.5
    assert isinstance(found["norm.options.deep"], str)


def test_seeds_share_a_cell_and_nothing_else_does() -> None:
    seeds = {identity.cell(config(seed=seed, swept=("optim.lr",))) for seed in range(3)}
    (name,) = seeds
    assert name.startswith("bn_lr0.1_")
    assert len(name.rsplit("_", 1)[1]) == 8
    others = [
        config(optim=schema.SGDConfig(lr=0.2)),
        config(norm=schema.GroupNormConfig(kind="group", groups=4)),
        config(train={"steps": 7}),
    ]
    assert (
        len({name.rsplit("_", 1)[1], *(identity.cell(each).rsplit("_", 1)[1] for each in others)})
        == 4
    )


@pytest.mark.parametrize("setup", ["a_s00_b", "x" * 80])
def test_a_cell_is_named_as_its_runs(setup: str) -> None:
    found = config(setup=setup, seed=12)
    assert identity.run_id(found).startswith(identity.cell(found).rsplit("_", 1)[0] + "_s12_")
