"""Reads an experiment: a file and the command line's overrides, as layers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from bnbench.config import claims, datasets, layers, plans, schema, yaml
from bnbench.config.experiments import Axis, ExperimentConfig, Seeds, Setup, read_axis, read_looks
from bnbench.config.experiments import Overrides as Overrides
from bnbench.config.faults import Faults
from bnbench.config.layers import Blocks, Layer
from bnbench.config.schema import BLOCKS
from bnbench.config.sentences import validated, validated_block
from bnbench.config.yaml import Path, Source
from bnbench.wording import cut, did_you_mean, found, listing, nearest, shortened, slug

OWN_KEYS = ("experiment", "question", "profile", "seed", "seeds", "looks", "log", "tune")
"""Of `--set`, too."""

STORED = ("experiment.yaml", "config.yaml")
"""What a study and a run are kept as."""


def load_experiment(path: FilePath, overrides: Overrides | None = None) -> ExperimentConfig:
    """Reads and checks a file.

    Raises ConfigError with every fault, those of the single runs included if the file itself has
    any; `plans.expand` raises for the runs of a file that is sound in itself.
    """
    datasets.forget()
    faults = Faults()
    source = yaml.read(str(path), str(path.parent), faults)
    readable = isinstance(source.data, dict) or not faults.found
    if not isinstance(source.data, dict | None):
        message = f"an experiment is a mapping of keys, not {found(source.data)}"
        faults.add(source.place(), message)
        readable, source = False, replace(source, data=None)
    experiment = Reader(source, overrides or Overrides(), faults).read()
    if faults.found:
        if readable:
            plans.find_faults(experiment, faults)
        raise faults.error(len(experiment.setups))
    return experiment


def load_run(folder: FilePath) -> schema.RunConfig:
    """The configuration that a run's folder keeps. Raises ConfigError, UsageError for several."""
    return plans.expand(load_experiment(folder / "config.yaml")).only()


def under_profile(experiment: ExperimentConfig, profile: str | None) -> ExperimentConfig:
    """The same file under another of its profiles; as it is, where it has no such one."""
    if profile == experiment.profile or profile not in _part(
        experiment.source.data or {}, "profiles"
    ):
        return experiment
    sets = (*experiment.overrides.set, f"profile={json.dumps(profile)}")
    return load_experiment(experiment.path, replace(experiment.overrides, set=sets, claims=()))


def _sound(source: Source, faults: Faults) -> Source:
    """A source with absolute paths; whatever is wrong becomes a fault and is left out.

    The blocks themselves are judged later, when the patches are merged.
    """
    data = source.data or {}
    model, flaws = validated(schema.ExperimentFile, data)
    for flaw in flaws:
        faults.add(source.place(flaw.path, key=flaw.key), flaw.message, flaw.hint)
    while model is None:
        for flaw in flaws:
            data = _without(data, flaw.path)
        model, flaws = validated(schema.ExperimentFile, data)
    stored = FilePath(source.name).name in STORED
    return replace(source, data=layers.absolute(data, source.folder, stored=stored))


def _without(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Without what is at a path, but no more than an axis and no less than a list."""
    keys = [str(part) for part in itertools.takewhile(lambda part: isinstance(part, str), path)]
    keys = keys[: keys.index("axes") + 2] if "axes" in keys else keys
    result = inner = dict(data)
    for key in keys[:-1]:
        inner[key] = inner = dict(inner.get(key) or {})
    if keys:
        inner.pop(keys[-1], None)
    return result if keys else {}


def _part(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A mapping that may be absent or null."""
    return data.get(key) or {}


@dataclass(slots=True)
class Reader:
    """Puts an experiment together from a file and the command line."""

    source: Source
    overrides: Overrides
    faults: Faults
    notes: list[str] = field(default_factory=list)
    said: list[Source] = field(default_factory=list)  # without what is wrong; the last one wins

    def read(self) -> ExperimentConfig:
        """The experiment, without whatever is wrong with it."""
        path = FilePath(self.source.name)
        overs = self.arguments("--over", len(self.overrides.set) + 1)
        arguments = [*self.arguments("--set", 1), *overs, *self.seed_arguments()]
        self.said = [_sound(each, self.faults) for each in (self.source, *arguments)]
        file = self.said[0].data
        profile = self.profile(_part(file, "profiles"))
        if profile is not None:
            patch = file["profiles"][profile] or {}
            self.said.insert(1, self.source.part(("profiles", profile), patch))
        axes = {name: (value, each.part(("axes",))) for each in self.said
                for name, value in _part(each.data, "axes").items()}  # fmt: skip
        grid = tuple(read_axis(name, *axis, self.notes) for name, axis in axes.items())
        stack = [Layer(each, layers.given(each.data)) for each in self.said if not each.rank]
        base: Blocks = {name: {} for name in BLOCKS}
        for layer in stack:
            base = layers.merged(base, layer.blocks)
        below, *above = [self.set_layers(each) for each in self.said]
        set_layers = (*below, *itertools.chain(*above))
        sets = layers.merged(layers.united(below), layers.united(set_layers[len(below) :]))
        setups = self.setups(_part(file, "setups"), grid, self.over_names(overs))
        self.judge(base, stack, setups)
        tune = self.tune(grid)
        if file.get("setup") is not None and setups:
            place = self.source.place(("setup",), key=True)
            self.faults.add(place, "setup and setups are both given", "give one of them")
        reader = claims.ClaimReader(self.source, setups, grid, tune, self.faults)
        claimed = reader.read()
        judged = reader.chosen(_part(file, "profiles"), profile, self.overrides.claims)
        return ExperimentConfig(
            name=slug(self.own("experiment")[1] or path.stem) or "experiment",
            question=self.own("question")[1],
            base=base,
            base_layers=tuple(stack),
            setups=self.chosen(setups),
            axes=grid,
            seeds=(numbers := self.seeds()),
            looks=read_looks(numbers, *self.own("looks"), self.faults),
            log=schema.LOGGERS if (given := self.own("log"))[1] is None else given[1],
            log_place=given[0].place(("log",)),
            tune=tune,
            claims=tuple(each for each in claimed if judged is None or each.id in judged),
            published=reader.published(),
            registered=validated(schema.RegisteredConfig, _part(file, "registered"))[0],
            claims_only=judged is not None,
            profile=profile,
            sets=sets,
            set_layers=set_layers,
            label=None if "norm" in sets else file.get("setup"),  # it described another norm
            swept=file.get("swept") or (),
            notes=tuple(self.notes),
            path=path,
            overrides=self.overrides,
            overridden=replace(self.overrides, claims=()) != Overrides(),
            source=self.source,
        )

    def own(self, key: str) -> tuple[Source, Any]:
        """Who gives the value of a key around the blocks, and the value."""
        given = [(each, each.data[key]) for each in self.said if key in each.data]
        return given[-1] if given else (self.source, None)

    # --- the command line -----------------------------------------------------------------

    def arguments(self, option: str, first: int) -> list[Source]:
        """Each argument of `--set` or `--over` as a file of its own; the first has that rank."""
        result = []
        texts = self.overrides.set if option == "--set" else self.overrides.over
        for rank, text in enumerate(texts, start=first):
            name, equals, value = (part.strip() for part in text.partition("="))
            source = Source(f"{option} {shortened(name)}".strip(), "", rank)
            count, data = len(self.faults.found), None
            if not equals or not name:
                hint = f"write {option} optim.lr=0.1"
                self.faults.add(source.place(), "this is not KEY=VALUE", hint)
            elif len(name) > yaml.MAX_KEY:
                message = f"the key {shortened(name)} is longer than {yaml.MAX_KEY} characters"
                self.faults.add(source.place(), message)
            else:
                items = option == "--over" and value[:1] not in ("{", "")
                data = yaml.parse(f"[{value}]" if items else value, source, self.faults).data
                if data is None and value not in ("null", "~") and len(self.faults.found) == count:
                    several, form = option == "--over", f"write {option} {name}="
                    what = "the values are missing" if several else "the value is missing"
                    hint = f"{form}V1,V2, as in --over optim.lr=0.03,0.3"
                    hint = hint if several else f"{form}VALUE; null stands for none"
                    self.faults.add(source.place(), what, hint)
            if len(self.faults.found) == count:
                own = name in OWN_KEYS and option == "--set"
                around = "axes" if option == "--over" else "set"
                said = {name: data} if own else {around: {name: data}}
                result.append(Source(source.name, "", rank, said))
        return result

    def seed_arguments(self) -> list[Source]:
        """`--seeds` and `--seed`, each as a file of its own."""
        rank = len(self.overrides.set) + len(self.overrides.over) + 1
        given = {"seeds": self.overrides.seeds, "seed": self.overrides.seed}
        result = [
            Source(f"--{key}", "", rank, {key: number})
            for key, number in given.items()
            if number is not None
        ]
        if len(result) > 1:
            message = "--seeds and --seed are both given"
            self.faults.add(result[0].place(), message, "give one of them")
        return result

    def over_names(self, overs: list[Source]) -> set[str]:
        """The axes whose values the command line gives; a fault for one that it gives twice."""
        names = set[str]()
        for source in overs:
            (name,) = source.data["axes"]
            if name in names:
                self.faults.add(source.place(), f"{name} is given twice")
            names.add(name)
        return names

    def set_layers(self, source: Source) -> list[Layer]:
        """What `set:` of the file or one `--set` sets, a layer for each key."""
        result = []
        for name, value in _part(source.data, "set").items():
            key = tuple(name.split("."))
            if len(key) > 1 or isinstance(value, dict | None):
                blocks = layers.patch(key, (value or {}) if len(key) == 1 else value)
                result.append(Layer(source.part(("set", name)), blocks, key))
            else:
                message = f"{name} must be a mapping, not {found(value)}"
                self.faults.add(source.place(("set", name)), message)
        return result

    # --- around the blocks ----------------------------------------------------------------

    def seeds(self) -> Seeds:
        """The seeds: `--seed`, else `--seeds`, else `seeds:`, else `seed:`, else 0."""
        given = [each for each in self.said if {"seed", "seeds"} & each.data.keys()]
        source = (given or self.said)[-1]
        seeds, seed = source.data.get("seeds"), source.data.get("seed")
        if seeds is None:
            return (seed or 0,)
        chosen: Seeds = range(seeds) if isinstance(seeds, int) else tuple(seeds)
        if seed is not None and seed not in chosen:
            message = f"seed {seed} is not among the seeds"
            place = source.place(("seed",), key=True)
            self.faults.add(place, message, "give seed or seeds, not both")
        return chosen

    def profile(self, profiles: Mapping[str, Any]) -> str | None:
        """The profile that the command line or the file names, else the first."""
        source, value = self.own("profile")
        if value is None or value in profiles:
            return value or next(iter(profiles), None)
        if "profiles" not in (self.source.data or {}):
            place = source.place(("profile",), key=True)
            self.faults.add(place, "the file has no profiles", "profiles: names them")
        elif profiles:
            message = f"profile must be {listing(profiles)}, not {found(value)}"
            hint = did_you_mean(nearest(value, profiles))
            self.faults.add(source.place(("profile",)), message, hint)
        return None

    def tune(self, grid: tuple[Axis, ...]) -> schema.TuneConfig | None:
        """The axis that is tuned, which must be one of the axes."""
        source, values = self.own("tune")
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
        self, given: Mapping[str, Any], grid: tuple[Axis, ...], overs: set[str]
    ) -> tuple[Setup, ...]:
        """The setups, with the values that they have for axes of the experiment."""
        result = []
        for name, patch in given.items():
            notes, part = list[str](), self.source.part(("setups", name))
            axes = [
                read_axis(axis, values, part.part(("axes",)), notes)
                for axis, values in _part(patch or {}, "axes").items()
                if self.is_own_axis(name, axis, grid) and axis not in overs
            ]
            self.notes += [f"setup {shortened(name)}: {note}" for note in notes]
            result.append(Setup(name, Layer(part, layers.given(patch or {})), tuple(axes)))
        return tuple(result)

    def chosen(self, setups: tuple[Setup, ...]) -> tuple[Setup, ...]:
        """All setups, or the one that the command line names."""
        name = self.overrides.setup
        if name is None or any(each.name == name for each in setups):
            return tuple(each for each in setups if name in (None, each.name))
        names = [shortened(each.name) for each in setups]
        message = f"there is no setup {found(name)}" if names else "the file has no setups"
        hint = did_you_mean(nearest(name, names)) or f"setups: {cut(names)}" * bool(names) or None
        self.faults.add(Source("--setup", "", 1).place(), message, hint)
        return setups

    def is_own_axis(self, setup: str, name: str, grid: tuple[Axis, ...]) -> bool:
        """Whether a setup may have values for an axis: the experiment must name it."""
        sound = [axis.name for axis in grid]
        written = (self.source.data or {}).get("axes")
        names = list(dict.fromkeys([*(written if isinstance(written, dict) else ()), *sound]))
        if name in names:
            return name in sound
        hint = did_you_mean(nearest(name, names))
        if not hint and names:
            hint = f"a setup may give values of its own for {listing(names, 'and')}"
        hint = hint or f"add {name} to `axes:` first; setups may then have values of their own"
        message = f"setups.{setup}.axes: {name} is not an axis of the experiment"
        self.faults.add(self.source.place(("setups", setup, "axes", name), key=True), message, hint)
        return False

    def judge(self, base: Blocks, stack: list[Layer], setups: tuple[Setup, ...]) -> None:
        """Judges what is written even where every run overrides it."""
        found: list[tuple[str, layers.Block, list[Layer], str | None]]
        found = [(name, base[name], stack, None) for name in base]
        found += [(name, layers.on(name, base[name], block), [*stack, setup.layer], setup.name)
                  for setup in setups for name, block in setup.layer.blocks.items()]  # fmt: skip
        for name, block, above, setup in found:
            for flaw in validated_block(name, block, whole=False)[1]:
                place = layers.origin(above, (name, *flaw.path), key=flaw.key)
                self.faults.add(place, flaw.message, flaw.hint, setup)
