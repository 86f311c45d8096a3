"""What decides the numbers: every key of the schema is on one side, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bnbench.config import identity, schema
from bnbench.errors import ConfigError, DataError
from tests.norms import rows

# Written apart from the code, so that a new key fails here until somebody has decided.
NOT_IDENTITY = {
    "data.root",
    "data.download",
    "train.evaluations",
    "train.evaluation_images",
    "train.log_every",
    "train.checkpoint_every",
    "compute.device",
    "compute.threads",
}
SYNTHETIC = "data: {dataset: synthetic, validation_size: 500}\n"
PLAIN = ""
MLP = "model: {kind: mlp, widths: [8]}\n"
GROUP = "norm: {kind: group}\n"
LAYER = "norm: {kind: layer}\n"
ADAMW = "optim: {kind: adamw}\n"
GHOST = "norm: {kind: ghost, batch_size: 8}\n"
RENORM = "norm: {kind: batch-renorm}\n"
FROZEN = "norm: {kind: frozen}\n"
EVO = "norm: {kind: evonorm-s0}\n"
CUSTOM_NORM = "norm: {kind: custom, target: 'layers.py:Mine'}\n"
CUSTOM_MODEL = "model: {kind: custom, target: 'layers.py:Mine'}\n"
CUSTOM_DATA = "data: {dataset: custom, target: 'layers.py:Mine'}\n"
RESNET = "model: {kind: resnet, depth: 8}\n"
TORCHVISION = "model: {kind: torchvision, name: resnet18}\n"
# base, key, another value: one row for every key of every block
SWAPPED = "model: {kind: torchvision, name: resnet18, norm: swap}\n"
TIMM = "model: {kind: timm, name: resnet18}\n"
CHANGES = [
    (PLAIN, "data.dataset", "mnist"),
    (PLAIN, "data.root", "elsewhere"),
    (PLAIN, "data.download", "false"),
    (PLAIN, "data.train_size", "500"),
    (PLAIN, "data.validation_size", "500"),
    (PLAIN, "data.batch_size", "32"),
    (PLAIN, "data.eval_batch_size", "32"),
    (PLAIN, "data.drop_last", "false"),
    (PLAIN, "data.order", "class-sorted"),
    (PLAIN, "data.augment", "flip-crop"),
    (SYNTHETIC, "data.train_images", "2001"),
    (SYNTHETIC, "data.test_images", "501"),
    (SYNTHETIC, "data.classes", "9"),
    (SYNTHETIC, "data.channels", "3"),
    (SYNTHETIC, "data.image_size", "29"),
    (SYNTHETIC, "data.noise", "0.6"),
    (SYNTHETIC, "data.data_seed", "1"),
    (CUSTOM_DATA, "data.target", "layers.py:Other"),
    (CUSTOM_DATA, "data.options", "{size: 3}"),
    (CUSTOM_DATA, "data.files", "[weights.pt]"),
    (PLAIN, "model.kind", "mlp"),
    (PLAIN, "model.widths", "[8]"),
    (PLAIN, "model.blocks", "1"),
    (PLAIN, "model.activation", "gelu"),
    (PLAIN, "model.init", "xavier"),
    (PLAIN, "model.dropout", "0.1"),
    (MLP, "model.widths", "[16]"),
    (RESNET, "model.depth", "14"),
    (RESNET, "model.width", "8"),
    (RESNET, "model.variant", "pre"),
    (RESNET, "model.zero_init_last_norm", "true"),
    (RESNET + "norm: {kind: none}", "model.fixup", "false"),
    (RESNET + "norm: {kind: scaled-ws}", "model.fixup", "false"),
    (TORCHVISION, "model.name", "resnet34"),
    (TORCHVISION, "model.stem", "imagenet"),
    (TORCHVISION, "model.init", "xavier"),
    (TORCHVISION, "model.norm", "swap"),
    (SWAPPED, "model.pretrained", "weights.pt"),
    (TIMM, "model.name", "resnet34"),
    (TIMM, "model.options", "{stem_type: deep}"),
    (CUSTOM_MODEL, "model.target", "layers.py:Other"),
    (CUSTOM_MODEL, "model.options", "{width: 4}"),
    (CUSTOM_MODEL, "model.init", "he"),
    (PLAIN, "norm.kind", "none"),
    (PLAIN, "norm.placement", "after"),
    (PLAIN, "norm.eps", "1e-4"),
    (PLAIN, "norm.affine", "false"),
    (PLAIN, "norm.batch_size", "32"),
    (PLAIN, "norm.momentum", "null"),
    (GROUP, "norm.groups", "2"),
    (EVO, "norm.groups", "2"),
    (GHOST, "norm.batch_size", "16"),
    (RENORM, "norm.momentum", "0.1"),
    (RENORM, "norm.r_max", "2"),
    (RENORM, "norm.d_max", "2"),
    (RENORM, "norm.correct_from", "0.1"),
    (RENORM, "norm.r_open", "0.5"),
    (RENORM, "norm.d_open", "0.5"),
    (FROZEN, "norm.freeze_after", "0.6"),
    (CUSTOM_NORM, "norm.target", "layers.py:Other"),
    (CUSTOM_NORM, "norm.options", "{deep: [{er: null}]}"),
    (CUSTOM_NORM, "norm.placement", "after"),
    (LAYER, "norm.eps", "1e-4"),
    (PLAIN, "data.inputs", "unit"),
    (PLAIN, "model.kernel", "5"),
    (PLAIN, "model.padding", "[1, 1, 0]"),
    (PLAIN, "model.halving", "max"),
    (PLAIN, "model.features", "all"),
    (PLAIN, "model.hidden", "[8]"),
    ("model: {kind: mlp}", "model.norm_inputs", "true"),
    ("model: {kind: mlp}", "model.depth", "5"),
    (PLAIN, "optim.kind", "adamw"),
    (PLAIN, "optim.lr", "0.2"),
    (PLAIN, "optim.momentum", "0.8"),
    (PLAIN, "optim.weight_decay", "0.1"),
    ("optim: {weight_decay: 0.1}", "optim.decay_norm_and_bias", "true"),
    (PLAIN, "optim.lr_rule", "sqrt"),
    ("optim: {lr_rule: linear}", "optim.base_batch_size", "32"),
    (PLAIN, "optim.schedule", "constant"),
    (PLAIN, "optim.warmup", "0.1"),
    ("optim: {schedule: step}", "optim.milestones", "[0.5]"),
    ("optim: {schedule: step}", "optim.decay", "0.5"),
    (ADAMW, "optim.betas", "[0.9, 0.99]"),
    (ADAMW, "optim.eps", "1e-7"),
    (PLAIN, "optim.train_only", "norm"),
    (PLAIN, "train.epochs", "2"),
    (PLAIN, "train.steps", "50"),
    (PLAIN, "train.examples", "5000"),
    (PLAIN, "train.evaluations", "3"),
    (PLAIN, "train.evaluation_images", "77"),
    (PLAIN, "train.log_every", "3"),
    (PLAIN, "train.checkpoint_every", "5"),
    (PLAIN, "train.diverged_above", "20"),
    (PLAIN, "compute.device", "cpu"),
    (PLAIN, "compute.threads", "2"),
    (PLAIN, "compute.precision", "bf16"),
]


@pytest.fixture(autouse=True)
def layers(tmp_path: Path) -> Path:
    """A file with two classes, for the kinds that need one."""
    path = tmp_path / "layers.py"
    path.write_text("class Mine: ...\nclass Other: ...\n")
    (tmp_path / "weights.pt").write_bytes(b"a checkpoint")
    return path


@pytest.mark.parametrize(("base", "key", "value"), CHANGES)
def test_each_key_is_on_its_side(plan: Any, base: str, key: str, value: str) -> None:
    before, after = plan(base).only(), plan(base, f"{key}={value}").only()
    assert before != after
    assert (identity.identity(before) == identity.identity(after)) == (key in NOT_IDENTITY)


def test_every_key_is_classified() -> None:
    tried = {key for _, key, _ in CHANGES if not key.startswith("norm.")}
    # Probes leave no trace in the numbers, whatever their keys; those of norm are tried below.
    blocks = [block for block in schema.BLOCKS.values() if block.name not in ("probes", "norm")]
    assert {f"{block.name}.{key}" for block in blocks for key in block.keys} == tried
    assert set(schema.RunConfig.model_fields) == {
        "experiment",
        "setup",
        "swept",
        "seed",
        "log",
        *schema.BLOCKS,
    }
    for block in schema.BLOCKS.values():
        for model in block.models.values():
            for key, field in model.model_fields.items():
                inner = field.annotation
                nested = isinstance(inner, type) and issubclass(inner, BaseModel)
                assert not nested or block.name == "probes", f"classify the keys inside {key}"


def another(value: Any) -> Any:
    """A value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return 3 if value is None else "after"


@pytest.mark.parametrize("kind", [kind for kind in rows.KINDS if kind != "custom"])
def test_every_key_of_a_normalization_is_identity(plan: Any, kind: str) -> None:
    """Whatever its keys are: no list of them is kept by hand."""
    norm = rows.settings(kind)
    base = plan("").only().model_copy(update={"norm": norm})
    for key, value in norm:
        if key == "kind" or (key == "placement" and isinstance(norm, schema.InsteadOfActivation)):
            continue
        changed = norm.model_copy(update={key: another(value)})
        changed = base.model_copy(update={"norm": changed})
        assert identity.identity(changed) != identity.identity(base), key


def test_keys_that_came_later_left_runs_as_they_were(plan: Any) -> None:
    """The id of a run from before `noisy` had constants of its own."""
    base = plan("norm: {kind: noisy}").only()
    assert identity.identity(base)[:8] == "23819654"
    assert identity.identity(plan("norm: {kind: noisy, std_range: 1.25}").only()) == (
        identity.identity(base)
    )
    alone = "norm: {kind: noisy, normalize: false}"
    assert identity.identity(plan(alone).only()) == (
        identity.identity(plan(f"{alone[:-1]}, momentum: 0.2}}").only())
    )


@pytest.mark.parametrize(
    ("text", "recorded"), [(TORCHVISION, "a8908efa"), (CUSTOM_MODEL, "7d6c8b98")]
)
def test_networks_that_are_made_with_their_norm_are_the_runs_they_were(
    plan: Any, text: str, recorded: str
) -> None:
    """Ids from before networks could be built as they are, from a file of weights."""
    assert identity.identity(plan(text).only())[:8] == recorded


def test_weights_are_their_content_and_leave_no_other_choice(plan: Any, layers: Path) -> None:
    text = TIMM[:-2] + ", pretrained: weights.pt}"
    known = identity.identity(plan(text).only())
    weights = layers.with_name("weights.pt")
    weights.rename(layers.with_name("moved.pt"))
    moved = text.replace("weights.pt", "moved.pt")
    assert identity.identity(plan(moved).only()) == known
    assert identity.identity(plan(moved, "model.init=he").only()) == known
    layers.with_name("moved.pt").write_bytes(b"other weights")
    assert identity.identity(plan(moved).only()) != known
    with pytest.raises(ConfigError, match=r"1:37: model.pretrained: there is no file .*weights.pt"):
        plan(text)


def test_labels_are_not_identity_and_the_seed_is(plan: Any) -> None:
    base = plan("").only()
    for change in ({"experiment": "b"}, {"setup": "b"}, {"swept": ("optim.lr",)}):
        assert identity.identity(base.model_copy(update=change)) == identity.identity(base)
    assert identity.identity(base.model_copy(update={"seed": 1})) != identity.identity(base)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{optim: {lr: 1e-3, momentum: 0}}", "optim:\n  momentum: 0.0  # none\n  lr: 0.001\n"),
        ("train: {diverged_above: 10}", "train: {diverged_above: 10.0}"),
        ("optim: {weight_decay: -0.0}", "optim: {weight_decay: 0}"),
        ("norm: {batch_size: null}", ""),
        ("train: {epochs: 3}", ""),
        # what cannot matter
        ("optim: {milestones: [0.1], decay: 0.5}", ""),
        ("optim: {base_batch_size: 8}", ""),
        ("optim: {decay_norm_and_bias: true}", ""),
        ("optim: {train_only: null}", ""),
        (RESNET, "model: {kind: resnet, depth: 8, fixup: false}"),
        (RESNET + "norm: {kind: none}",
         "norm: {kind: none}\nmodel: {kind: resnet, depth: 8, zero_init_last_norm: true}"),
        (CUSTOM_NORM, CUSTOM_NORM.replace("}", ", options: {}, placement: before}")),
        (CUSTOM_NORM, CUSTOM_NORM.replace("layers.py", "./x/../layers.py")),
        ("norm: {kind: custom, target: 'layers.py:Mine', options: {a: -0.0, b: {c: 1, d: 2}}}",
         "norm: {options: {b: {d: 2, c: 1}, a: 0.0}, kind: custom, target: 'layers.py:Mine'}"),
    ],
)  # fmt: skip
def test_spelling_is_not_identity(plan: Any, one: str, other: str) -> None:
    assert identity.identity(plan(one).only()) == identity.identity(plan(other).only())


def test_image_folders_count_by_content(plan: Any, tmp_path: Any) -> None:
    for name in ("a", "b", "c"):
        for part in ("train", "test"):
            for label in ("cat", "dog"):
                (tmp_path / name / part / label).mkdir(parents=True)
                for number in range(9):
                    image = b"longer" if name == "c" and number == 8 else b"image"
                    (tmp_path / name / part / label / f"{number}.png").write_bytes(image)
    text = "data: {dataset: image-folder, image_size: 8, validation_size: 4, batch_size: 2}"
    a, b, c = (identity.identity(plan(text, f"data.root={name}").only()) for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("block", ["norm", "model"])
def test_custom_classes_count_by_content(plan: Any, layers: Path, block: str) -> None:
    text = f"{block}: {{kind: custom, target: 'layers.py:Mine'}}"
    before = identity.identity(plan(text).only())
    elsewhere = layers.parent / "elsewhere" / "renamed.py"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(layers.read_bytes())
    moved = plan(text, f"{block}.target=elsewhere/renamed.py:Mine").only()
    assert getattr(moved, block).target == f"{elsewhere}:Mine"
    assert identity.identity(moved) == before
    layers.write_text(layers.read_text() + "# another comment\n")
    assert identity.identity(plan(text).only()) != before
    kept = plan(text, f"{block}.target=elsewhere/renamed.py:Mine").only()
    assert [line.split(":")[0] for line in identity.differences(kept, plan(text).only())] == [
        f"{block}.content"
    ]
    layers.unlink()
    with pytest.raises(DataError, match="there is no file"):
        identity.identity(
            kept.model_copy(
                update={block: getattr(kept, block).model_copy(update={"target": f"{layers}:Mine"})}
            )
        )


def test_options_of_one_name_and_another_value_are_other_runs(plan: Any) -> None:
    values = ["{}", "{a: null}", "{a: 1}", "{a: 1.0}", "{a: '1'}", "{a: true}", "{a: [1]}",
              "{a: {a: 1}}", "{b: 1}"]  # fmt: skip
    runs = [plan(CUSTOM_NORM, f"norm.options={value}").only() for value in values]
    assert len({identity.identity(run) for run in runs}) == len(values)


def test_a_key_of_custom_options_is_an_axis(plan: Any) -> None:
    runs = plan(CUSTOM_NORM + "axes: {norm.options.eps: [0.1, 0.2]}").runs
    assert [run.norm.options for run in runs] == [{"eps": 0.1}, {"eps": 0.2}]
    assert [identity.run_id(run).split("_s00_")[0] for run in runs] == [
        *("custom-before_eps0.1", "custom-before_eps0.2")
    ]
