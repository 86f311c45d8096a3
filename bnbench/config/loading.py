"""Reads an experiment: a file and the command line's overrides, as layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from bnbench.config import claims, layers, plans, schema, yaml
from bnbench.config.experiments import Axis, ExperimentConfig, Seeds, Setup, read_axis
from bnbench.config.faults import Faults, Place, did_you_mean, found, listing, nearest, shortened
from bnbench.config.identity import default_experiment, slug
from bnbench.config.layers import Blocks, Layer
from bnbench.config.schema import BLOCKS
from bnbench.config.sentences import Flaw, validated, validated_block
from bnbench.config.yaml import Path, Source

OWN_KEYS = ("experiment", "question", "profile", "seed", "seeds", "tune")  # `--set` may name these


@dataclass(frozen=True, slots=True)
class Overrides:
    """Arguments as typed: `set` and `over` hold `KEY=VALUE` texts."""

    set: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    seeds: int | None = None
    seed: int | None = None


class Given(NamedTuple):
    """A value, and who gives it."""

    source: Source
    value: Any = None


def load_experiment(path: FilePath, overrides: Overrides | None = None) -> ExperimentConfig:
    """Reads and checks a file.

    Raises ConfigError with every fault, those of the single runs included if the file itself has
    any; `plans.expand` raises for the runs of a file that is sound in itself.
    """
    faults, overrides = Faults(), overrides or Overrides()
    text, source = yaml.read(str(path), str(FilePath(path).parent), faults)
    unread = source.data is None and bool(faults.found)
    if not unread and not isinstance(source.data, dict | None):
        what = f"an experiment is a mapping of keys, not {found(source.data)}"
        faults.add(source.place(), what)
        unread = True
    experiment = Reader(path, text, source, overrides, faults).read()
    if faults.found:
        if not unread:
            plans.find_faults(experiment, faults)
        raise faults.error(len(experiment.setups))
    return experiment


def _sound(source: Source, faults: Faults) -> dict[str, Any]:
    """What a source says, with absolute paths; whatever is wrong becomes a fault and is left out.

    The blocks themselves are judged later, when the patches are merged.
    """
    data = source.data if isinstance(source.data, dict) else {}
    model, flaws = validated(schema.ExperimentFile, data)
    for flaw in flaws:
        faults.add(source.place(flaw.path, key=flaw.key), flaw.message, flaw.hint)
    while model is None:
        for flaw in flaws:
            data = _without(data, _removable(flaw.path))
        model, flaws = validated(schema.ExperimentFile, data)
    return layers.absolute(data, source.folder)


def _part(data: Mapping[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    """The entries of a mapping that may be absent or null."""
    return (data.get(key) or {}).items()


def _removable(path: Path) -> list[str]:
    """What is left out if there is a fault at a path: no more than an axis, no less than a list."""
    keys = [str(part) for part in itertools.takewhile(lambda part: isinstance(part, str), path)]
    return keys[: keys.index("axes") + 2] if "axes" in keys else keys


def _without(data: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    if not keys:
        return {}
    first, *rest = keys
    inner = data.get(first)
    if rest and isinstance(inner, dict):
        return data | {first: _without(inner, rest)}
    return {key: value for key, value in data.items() if key != first}


@dataclass(slots=True)
class Reader:
    """Puts an experiment together from a file and the command line."""

    path: FilePath
    text: str
    source: Source
    overrides: Overrides
    faults: Faults
    notes: list[str] = field(default_factory=list)

    def read(self) -> ExperimentConfig:
        """The experiment, without whatever is wrong with it."""
        file = _sound(self.source, self.faults)
        arguments = [(each, _sound(each, self.faults)) for each in self.arguments("--set", 1)]
        asked = [Given(each, said["profile"]) for each, said in arguments if "profile" in said]
        asked = asked or [Given(self.source, file.get("profile"))]
        profile = self.profile(file.get("profiles"), asked[-1])
        stack = [Layer(self.source, layers.given(file))]
        axes: dict[str, tuple[Source, Path, Any]]
        axes = {name: (self.source, ("axes",), value) for name, value in _part(file, "axes")}
        own = {key: Given(self.source, file[key]) for key in OWN_KEYS if key in file}
        if profile is not None:
            patch, at = file["profiles"][profile] or {}, ("profiles", profile)
            stack.append(Layer(self.source, layers.given(patch), at))
            axes |= {
                name: (self.source, (*at, "axes"), value) for name, value in _part(patch, "axes")
            }
            if "seeds" in patch:
                own.pop("seed", None)
                own["seeds"] = Given(self.source, patch["seeds"])
        for source, said in arguments:
            for key in (key for key in OWN_KEYS if key in said):
                if key in ("seed", "seeds"):
                    own = {each: value for each, value in own.items() if each[:4] != "seed"}
                own[key] = Given(source, said[key])
        overs = self.overs(len(self.overrides.set) + 1)
        axes |= {name: (source, ("axes",), value) for name, (source, value) in overs.items()}
        grid = tuple(read_axis(name, value, source, at, self.notes)
                     for name, (source, at, value) in axes.items())  # fmt: skip
        base: Blocks = {name: {} for name in BLOCKS}
        for layer in stack:
            base = layers.merged(base, layer.blocks)
        set_layers = self.set_layers(self.source, file)
        above = [layer for source, said in arguments for layer in self.set_layers(source, said)]
        sets = layers.merged(_united(set_layers), _united(above))
        setups = self.setups(dict(_part(file, "setups")), grid, overs)
        self.judge(base, stack, setups)
        tune = self.tune(own.get("tune", Given(self.source)), grid)
        return ExperimentConfig(
            name=self.name(own.get("experiment", Given(self.source))),
            question=own.get("question", Given(self.source)).value,
            base=base,
            base_layers=tuple(stack),
            setups=setups,
            axes=grid,
            seeds=self.seeds(own),
            tune=tune,
            claims=claims.read(self.source, setups, grid, tune, self.faults),
            profile=profile,
            sets=sets,
            set_layers=(*set_layers, *above),
            label=self.label(file.get("setup"), setups, sets),
            swept=file.get("swept") or (),
            notes=tuple(self.notes),
            path=FilePath(self.path),
            text=self.text,
            overridden=self.overrides != Overrides(),
            source=self.source,
        )

    # --- the command line -----------------------------------------------------------------

    def arguments(self, option: str, first: int) -> list[Source]:
        """Each argument of `--set` or `--over` as a file of its own; the first has that rank."""
        result = []
        texts = self.overrides.set if option == "--set" else self.overrides.over
        for rank, text in enumerate(texts, start=first):
            name, equals, value = text.partition("=")
            name, value = name.strip(), value.strip()
            source = Source(f"{option} {shortened(name)}".strip(), "", rank)
            count = len(self.faults.found)
            if not equals or not name:
                hint = f"write {option} optim.lr=0.1"
                self.faults.add(source.place(), "this is not KEY=VALUE", hint)
            elif len(name) > yaml.MAX_KEY:
                message = f"the key {shortened(name)} is longer than {yaml.MAX_KEY} characters"
                self.faults.add(source.place(), message)
            else:
                listed = f"[{value}]" if option == "--over" and value[:1] != "{" else value
                read = yaml.parse(listed if value else "", source, self.faults)
                empty = read.data is None and value not in ("null", "~")
                if empty and len(self.faults.found) == count:
                    hint = f"write {option} {name}=null for no value"
                    self.faults.add(source.place(), f"{name} has no value", hint)
                if len(self.faults.found) == count:
                    data: dict[str, Any] = {name: read.data}
                    if option == "--over":
                        data = {"axes": data}
                    elif name not in OWN_KEYS:
                        data = {"set": data}
                    result.append(Source(source.name, "", rank, data))
        return result

    def overs(self, first: int) -> dict[str, Given]:
        """The values of `--over` by axis."""
        result, given = dict[str, Given](), set[str]()
        for source in self.arguments("--over", first):
            (name,) = source.data["axes"]
            if name in given:
                self.faults.add(source.place(), f"{name} is given twice")
                continue
            given.add(name)
            for axis, values in _part(_sound(source, self.faults), "axes"):
                result[axis] = Given(source, values)
        return result

    def set_layers(self, source: Source, values: Mapping[str, Any]) -> list[Layer]:
        """What `set:` of the file or one `--set` sets, a layer for each key."""
        result = []
        for name, value in _part(values, "set"):
            key = tuple(name.split("."))
            if len(key) == 1 and not isinstance(value, dict | None):
                message = f"{name} must be a mapping, not {found(value)}"
                self.faults.add(source.place(("set", name)), message)
                continue
            blocks = layers.patch(key, (value or {}) if len(key) == 1 else value)
            result.append(Layer(source, blocks, ("set", name), key))
        return result

    def seeds(self, own: Mapping[str, Given]) -> Seeds:
        """The seeds: `--seed`, else `--seeds`, else `seeds:`, else `seed:`, else 0."""
        count, single = self.overrides.seeds, self.overrides.seed
        rank = len(self.overrides.set) + len(self.overrides.over) + 1
        if count is not None and single is not None:
            message = "--seeds and --seed are both given"
            self.faults.add(Place(rank, 0, 0, "--seeds"), message, "give one of them")
        for option, number, least in (("--seeds", count, 1), ("--seed", single, 0)):
            if number is not None and (number < least or number >= 2**63):
                message = f"must be a whole number of at least {least}, not {number}"
                self.faults.add(Place(rank, 0, 0, option), message)
                return (0,)
        if single is not None:
            return (single,)
        if count is not None:
            return range(count)
        seeds = own.get("seeds", Given(self.source)).value
        single_seed = own.get("seed", Given(self.source))
        seed = single_seed.value
        if seeds is None:
            return (0 if seed is None else seed,)
        chosen: Seeds = range(seeds) if isinstance(seeds, int) else tuple(seeds)
        if seed is not None and seed not in chosen:
            message = f"seed {seed} is not among the seeds"
            place = single_seed.source.place(("seed",), key=True)
            self.faults.add(place, message, "give seed or seeds, not both")
        return chosen

    # --- the file's own keys --------------------------------------------------------------

    def profile(self, profiles: Any, asked: Given) -> str | None:
        """The profile that the command line or the file names, else the first."""
        names = list(profiles or {})
        source, value = asked
        if value is None or value in names:
            return value or next(iter(names), None)
        if "profiles" not in (self.source.data or {}):
            place = source.place(("profile",), key=True)
            self.faults.add(place, "the file has no profiles", "profiles: names them")
        elif names:
            message = f"profile must be {listing(names)}, not {found(value)}"
            hint = did_you_mean(nearest(value, names))
            self.faults.add(source.place(("profile",)), message, hint)
        return None

    def name(self, given: Given) -> str:
        """The name of the experiment's folder."""
        source, text = given
        if text is not None and not slug(text):
            message = f"experiment: {found(text)} leaves no name for a folder"
            self.faults.add(source.place(("experiment",)), message, "use a letter or a digit")
        return slug(text or "") or default_experiment(str(self.path))

    def label(self, text: str | None, setups: tuple[Setup, ...], sets: Blocks) -> str | None:
        """The setup of a resolved run's own file."""
        if text is not None and setups:
            place = self.source.place(("setup",), key=True)
            self.faults.add(place, "setup and setups are both given", "give one of them")
        elif text is not None and not slug(text):
            message = f"setup: {found(text)} leaves no name"
            self.faults.add(self.source.place(("setup",)), message)
        return None if "norm" in sets else text  # the label described another norm

    def tune(self, given: Given, grid: tuple[Axis, ...]) -> schema.TuneConfig | None:
        """The axis that is tuned, which must be one of the axes."""
        source, values = given
        if values is None:
            return None
        tune, names = schema.TuneConfig.model_validate(values), [axis.name for axis in grid]
        if tune.axis in names:
            return tune
        allowed = listing(names) if names else "one of the axes, and there are none"
        message = f"tune.axis must be {allowed}, not {found(tune.axis)}"
        hint = did_you_mean(nearest(tune.axis, names))
        self.faults.add(source.place(("tune", "axis")), message, hint)
        return None

    def setups(
        self, given: Mapping[str, Any], grid: tuple[Axis, ...], overs: Mapping[str, Any]
    ) -> tuple[Setup, ...]:
        """The setups, with the values that they have for axes of the experiment."""
        result, slugs = [], dict[str, str]()
        for name in given:
            short, place = slug(name), self.source.place(("setups", name), key=True)
            if not short:
                message = f'the setup "{name}" leaves no name for a folder'
                self.faults.add(place, message, "use a letter or a digit")
            elif short in slugs:
                message = f'the setups "{slugs[short]}" and "{name}" share the folder name {short}'
                self.faults.add(place, message)
            slugs[short] = name
            values, notes = given[name] or {}, list[str]()
            axes = [
                read_axis(each, listed, self.source, ("setups", name, "axes"), notes)
                for each, listed in _part(values, "axes")
                if self.is_own_axis(name, each, grid) and each not in overs
            ]
            self.notes += [f"setup {shortened(name)}: {note}" for note in notes]
            layer = Layer(self.source, layers.given(values), ("setups", name))
            result.append(Setup(name, layer, tuple(axes)))
        return tuple(result)

    def is_own_axis(self, setup: str, name: str, grid: tuple[Axis, ...]) -> bool:
        """Whether a setup may have values for an axis: the experiment must name it."""
        axes = (self.source.data or {}).get("axes")
        names = list(
            {**(axes if isinstance(axes, dict) else {}), **{each.name: 0 for each in grid}}
        )
        if name in names:
            return name in [each.name for each in grid]
        hint = did_you_mean(nearest(name, names)) or (
            f"a setup may give values of its own for {listing(names, 'and')}"
            if names
            else f"add {name} to `axes:` first; setups may then have values of their own"
        )
        message = f"setups.{setup}.axes: {name} is not an axis of the experiment"
        self.faults.add(self.source.place(("setups", setup, "axes", name), key=True), message, hint)
        return False

    def judge(self, base: Blocks, stack: list[Layer], setups: tuple[Setup, ...]) -> None:
        """Judges what is written even where every run overrides it."""

        def add(flaw: Flaw, name: str, stack: list[Layer], setup: str | None = None) -> None:
            place = layers.origin(stack, (name, *flaw.path), key=flaw.key)
            self.faults.add(place, flaw.message, flaw.hint, setup)

        for name, block in base.items():
            for flaw in validated_block(name, block, whole=False)[1]:
                add(flaw, name, stack)
        for setup in setups:
            for name, block in setup.layer.blocks.items():
                values = layers.merged_block(name, base[name], block)
                for flaw in validated_block(name, values, whole=False)[1]:
                    add(flaw, name, [*stack, setup.layer], setup.name)


def _united(sets: Iterable[Layer]) -> Blocks:
    """One patch of many; of two values for the same key the later wins."""
    result: dict[str, Any] = {}
    for layer in sets:
        result = layers.deeper(result, layer.blocks)
    return result
