"""`bnbench explain` explains every kind, key, probe, metric and finding that there is."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

import bnbench
from bnbench import cli, explain
from bnbench.catalogue import FINDINGS
from bnbench.config import metrics, schema
from bnbench.errors import UsageError

REFERENCE = re.compile(r"`\w+(?:\.\w+)+`")


def said(*arguments: str, columns: int = 80) -> str:
    """What the command prints."""
    result = CliRunner().invoke(cli.app, ["explain", *arguments], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.stderr
    return result.stdout


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for member in get_args(annotation):
        yield from models(member)


def kinds() -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Block, kind and model of everything that the schema lets one choose."""
    for block, info in schema.RunConfig.model_fields.items():
        for model in models(info.annotation):
            tag = next((name for name in ("kind", "dataset") if name in model.model_fields), None)
            if tag is not None:
                for kind in get_args(model.model_fields[tag].annotation):
                    yield block, kind, model


KINDS = list(kinds())
PROBES = {
    name: next(models(info.annotation)) for name, info in schema.ProbesConfig.model_fields.items()
}


def test_the_schema_was_searched() -> None:
    blocks = {block for block, _, _ in KINDS}
    assert blocks == {"data", "model", "norm", "optim"}
    assert PROBES


@pytest.mark.parametrize(("block", "kind", "model"), KINDS)
def test_every_kind_is_explained_with_its_keys(
    block: str, kind: str, model: type[BaseModel]
) -> None:
    (entry,) = [
        each
        for each in explain.find(kind)
        if isinstance(each, explain.Entry) and each.topic == block
    ]
    assert entry.summary
    keys = entry.keys
    fields = {name: info for name, info in model.model_fields.items() if info.description}
    assert [key.name for key in keys] == [f"{block}.{name}" for name in fields]
    assert set(model.model_fields) - set(fields) <= {"kind", "dataset"}
    for key, info in zip(keys, fields.values(), strict=True):
        assert key.allowed
        assert key.required == info.is_required()
        if not key.required:
            assert key.default == info.get_default(call_default_factory=True)


@pytest.mark.parametrize(("block", "kind", "model"), KINDS)
def test_every_layer_that_a_docstring_names_is_quoted_with_its_source(
    block: str, kind: str, model: type[BaseModel]
) -> None:
    (entry,) = [
        each
        for each in explain.find(kind)
        if isinstance(each, explain.Entry) and each.topic == block
    ]
    assert len(entry.details) == len(REFERENCE.findall(entry.text))
    if block == "norm" and kind != "none" and "target" not in model.model_fields:
        assert "Source: " in "".join(entry.details)
        assert re.search(r"^    .+=", entry.details[0], re.MULTILINE), "a formula"


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_is_explained_with_its_definition(name: str) -> None:
    (entry,) = explain.find(name)
    assert isinstance(entry, explain.Entry)
    assert all(entry.details)
    assert [key.name for key in entry.keys] == [
        f"probes.{name}.{key}" for key in PROBES[name].model_fields
    ]


def test_every_finding_is_explained() -> None:
    assert FINDINGS
    for name in FINDINGS:
        text = said("findings", name)
        assert text.startswith(f"findings: {name}\nseen: ")
        parts = asdict(FINDINGS[name])
        assert all(part.split()[-1] in text for part in parts.values())
        (entry,) = json.loads(said("findings", name, "--json"))
        assert entry["parts"] == parts


def test_a_topic_may_stand_before_a_name_of_it() -> None:
    assert said("findings", "stale") == said("stale")
    # A finding, and a kind of normalization.
    assert (
        said("frozen").split("\n\nfindings: ")[1] == said("finding", "frozen")[len("findings: ") :]
    )
    assert said("norms", "frozen").startswith("norm: frozen\n")
    assert said("norms", "momentum") == said("momentum")
    result = CliRunner().invoke(cli.app, ["explain", "stale", "findings"])
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        2, "nothing is called stale findings"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "metric"),
    [
        (("eval mode",), "test/running/accuracy"),
        (("Training", "mode"), "test/batch/accuracy"),
        (("precise-BN",), "test/population/accuracy"),
    ],
)
def test_a_mode_is_one_of_the_statistics_of_a_metric(words: tuple[str, ...], metric: str) -> None:
    assert said(*words) == said(metric)


def test_every_metric_is_explained() -> None:
    assert len(explain.find("metrics")) == len(get_args(metrics.Metric))
    for name in (*metrics.METRICS, "probe/batch_noise/noise"):
        (entry,) = explain.find(name)
        assert isinstance(entry, explain.Entry)
        assert entry.topic == "metrics"
        assert metrics.unit(metrics.parse_metric(name)) in entry.text


def test_claims_are_explained_by_how_they_are_judged() -> None:
    text = said("claims")
    for word in (
        "supported",
        "refuted",
        "negligible",
        "inconclusive",
        *schema.ClaimConfig.model_fields,
    ):
        assert word in text


def test_a_key_may_have_the_name_that_other_programs_give_it() -> None:
    taken = "learning_rate is taken for optim.lr\n"
    assert said("learning_rate") == taken + said("optim.lr")
    assert said("nothing").startswith("nothing is taken for none\nnorm: none\n")
    assert "taken" not in said("lr") + said("norms") + said("sweep")


def test_a_key_is_explained_for_each_kind_that_has_it() -> None:
    assert said("momentum").splitlines() == [
        "norm.momentum (batch, ghost, frozen, noisy): a number from 0 to 1 or null;",
        "    default 0.1",
        "    weight of the new batch, as in PyTorch; null: cumulative average",
        "",
        "norm.momentum (batch-renorm): a number from 0 to 1 or null; default 0.01",
        "    weight of the new batch",
        "",
        "optim.momentum (sgd): a number of at least 0 and below 1; default 0.9",
        "    heavy-ball momentum",
    ]
    assert said("optim.momentum") == said("momentum").split("\n\n")[-1]


def test_everything_fits_the_screen() -> None:
    words = ["", *explain.topics(), *(entry.name for entry in explain.entries())]
    for word in words:
        text = said(*([word] if word and " " not in word else []))
        assert text.strip()
        assert max(map(len, text.splitlines())) <= 80, word


def test_what_is_printed_for_programs() -> None:
    (entry,) = json.loads(said("group", "--json"))
    assert (entry["topic"], entry["name"]) == ("norm", "group")
    groups = next(key for key in entry["keys"] if key["name"] == "norm.groups")
    assert (groups["default"], groups["required"]) == (4, False)
    assert len(json.loads(said("--json"))) == len(explain.entries())
    assert json.loads(said("norm.groups", "--json"))[0]["kinds"] == ["group", "group-ws"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("nrom", "norm"),
        ("gruop", "group"),
        ("norm.grops", "norm.groups"),
        ("momentun", "momentum"),
        ("learning_rat", "optim.lr"),
    ],
)
def test_a_misspelling_is_recognized(word: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {meant}"):
        explain.find(word)
    result = CliRunner().invoke(cli.app, ["explain", word])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"nothing is called {word}\n  did you mean {meant}?\n"


def test_functions_of_python_are_explained() -> None:
    # Their stubs: what `import bnbench` offers to type checkers.
    offered = re.findall(r" as (\w+)$", inspect.getsource(bnbench), re.MULTILINE)
    functions = [f"bnbench.{each}" for each in offered if each.islower()]
    found = [each for each in explain.entries() if each.topic == "python"]
    assert sorted(each.name for each in found) == sorted(functions)
    assert all(each.text for each in found)
    assert said("watch").startswith("python: bnbench.watch\nWatches the normalization layers")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("slurm", "options: --on of sweep\n"),
        ("ray", "options: --on of sweep\n"),
        ("until", "options: --until of sweep\nAdd seeds while"),
        ("runs-dir", "options: --runs-dir of train, sweep, "),
        ("verdict", "commands: bnbench verdict\nJudge claims about anybody's results"),
        ("verdict", "  bnbench verdict results.csv --claims"),
        ("copy", "commands: bnbench configs copy\n"),
        ("sweep", "python: bnbench.sweep\n"),
        ("sweep", "commands: bnbench sweep\n"),
        ("train", "train\nBudget, evaluations, checkpoints."),
        ("train", "commands: bnbench train\nTrain one run"),
        ("workers", "compute.threads: "),
        ("workers", "options: --workers of sweep\n"),
        ("cosine", "optim.schedule (sgd, adamw): constant, cosine or step"),
        ("tensorboard", "log: a list of tensorboard, "),
    ],
)
def test_commands_options_and_values_are_names_too(word: str, words: str) -> None:
    assert words in said(word)


def test_a_word_of_an_explanation_leads_to_it() -> None:
    with pytest.raises(UsageError, match=r"NAME` speaks of it: claims$"):
        explain.find("Holm")


def test_what_is_nothing_like_a_name() -> None:
    with pytest.raises(UsageError, match="lists the topics"):
        explain.find("xyzzy-plugh")
    with pytest.raises(UsageError, match="is not a metric"):
        explain.find("val/running/acuracy")
