"""Reads an experiment: a file and the command line's overrides, located and checked in itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bnbench.config import axes, keys, profiles
from bnbench.config.axes import Axis
from bnbench.config.check import check_block, nulls_are_empty
from bnbench.config.claims import ClaimReader
from bnbench.config.experiment import ExperimentConfig, Setup, Tune
from bnbench.config.faults import Faults, found, listing, nearest
from bnbench.config.grid import run_faults
from bnbench.config.labels import default_experiment, slug
from bnbench.config.merge import Tree, merged
from bnbench.config.nodes import (
    Entry,
    Mapping,
    Origin,
    Scalar,
    Sequence,
    Source,
    is_null,
)
from bnbench.config.overrides import (
    Assignment,
    Overrides,
    combined,
    read_overs,
    read_sets,
    settable,
)
from bnbench.config.strict_yaml import parse, read_text

METRICS = ("val/accuracy", "val/loss")


def load_experiment(path: Path, overrides: Overrides | None = None) -> ExperimentConfig:
    """Reads and checks a file.

    Raises ConfigError with every fault, those of the single runs included if the file itself has
    any; `expand` raises for the runs of a file that is sound in itself.
    """
    faults = Faults()
    overrides = overrides or Overrides()
    source = Source(str(path), str(Path(path).parent))
    text = read_text(str(path), source, faults)
    root = parse(text, source, faults) if text is not None else None
    top = Origin(source, 1, 1)
    if root is None or is_null(root):
        unread = bool(faults.found)
        root = Mapping({}, top)
    else:
        unread = False
    if not isinstance(root, Mapping):
        faults.add(root.origin, f"an experiment is a mapping of keys, not {found(root)}")
        unread, root = True, Mapping({}, top)
    experiment = Reader(root, source, faults).read(path, text or "", overrides)
    if faults.found:
        if not unread:
            faults.extend_all(run_faults(experiment))
        faults.check(len(experiment.setups))
    return experiment


@dataclass(slots=True)
class Reader:
    """Takes a file's tree apart; whatever is wrong becomes a fault and is left out."""

    root: Mapping
    source: Source
    faults: Faults
    notes: list[str] = field(default_factory=list)

    def read(self, path: Path, text: str, overrides: Overrides) -> ExperimentConfig:
        for key, entry in self.root.entries.items():
            if key not in keys.TOP_KEYS:
                message = keys.no_top_key(key, keys.TOP_KEYS, "an experiment")
                self.faults.add(entry.origin, *message)
        arguments = read_sets(overrides.set, self.faults)
        asked = [each.entry for each in arguments if each.key == ("profile",)]
        profile = profiles.chosen(self.root, asked[-1] if asked else None, self.faults)
        if profile is not None:
            self.root = profiles.applied(self.root, profile, self.faults)
        own = {key: self.root.entries[key] for key in keys.OWN_KEYS if key in self.root.entries}
        for each in arguments:
            if each.key[0] in keys.OWN_KEYS:
                if each.key[0] in ("seed", "seeds"):
                    own.pop("seed", None)
                    own.pop("seeds", None)
                own[each.key[0]] = each.entry
        rank = len(overrides.set) + 1
        overs = read_overs(overrides.over, rank, self.faults)
        base = {name: self.block(name, self.root, name) for name in keys.BLOCKS}
        sets = combined(self.sets(), [each for each in arguments if each.key[0] in keys.BLOCKS])
        grid = axes.read_axes(self.root.entries.get("axes"), overs, self.faults, self.notes)
        setups = self.setups(overs)
        self.check(base, setups)
        tune = self.tune(own.get("tune"), grid)
        claims = ClaimReader(setups, grid, tune, self.faults).read(self.root.entries.get("claims"))
        return ExperimentConfig(
            name=self.name(own.get("experiment"), path),
            question=self.text("question", own.get("question")),
            base=base,
            setups=setups,
            axes=grid,
            seeds=axes.read_seeds(own, overrides.seeds, overrides.seed, rank, self.faults),
            tune=tune,
            claims=claims,
            profile=None if profile is None else profile.name,
            sets=sets,
            label=self.label(setups, sets),
            swept=self.swept(),
            notes=tuple(self.notes),
            path=Path(path),
            text=text,
            overridden=overrides != Overrides(),
            root=self.root,
        )

    def block(self, name: str, parent: Mapping, dotted: str) -> Mapping:
        """A block of the base or of a setup; empty where it is not given."""
        entry = parent.entries.get(name)
        if entry is None:
            return Mapping({}, parent.origin)
        node = nulls_are_empty(entry.node)
        if isinstance(node, Mapping):
            return node
        tag = keys.BLOCKS[name].tag
        hint = None
        if tag and isinstance(node, Scalar) and node.value in keys.BLOCKS[name].kinds:
            hint = f"write {name}: {{{tag}: {node.value}}}"
        elif name == "norm" and isinstance(node, Scalar):
            hint = "write norm: {kind: none} for no normalization"
        self.faults.add(node.origin, f"{dotted} must be a mapping, not {found(node)}", hint)
        return Mapping({}, node.origin)

    def mapping(self, name: str) -> Mapping:
        entry = self.root.entries.get(name)
        node = nulls_are_empty(entry.node) if entry else self.root
        if entry is None or not isinstance(node, Mapping):
            if entry:
                message = f"{name} must be a mapping, not {found(node)}"
                self.faults.add(node.origin, message)
            return Mapping({}, self.root.origin)
        return node

    def sets(self) -> list[Assignment]:
        result = []
        for dotted, entry in self.mapping("set").entries.items():
            located = Entry(entry.origin, entry.node)
            kept = settable(tuple(dotted.split(".")), located, self.faults)
            if kept:
                result.append(kept)
        return result

    def setups(self, overs: dict[str, Entry]) -> tuple[Setup, ...]:
        result: list[Setup] = []
        slugs: dict[str, str] = {}
        listed = self.root.entries.get("axes")
        given = listed.node.entries if listed and isinstance(listed.node, Mapping) else {}
        axis_names = list({**given, **overs})
        for name, entry in self.mapping("setups").entries.items():
            short = slug(name)
            if not short:
                message = f'the setup "{name}" leaves no name for a folder'
                self.faults.add(entry.origin, message, "use a letter or a digit")
            elif short in slugs:
                message = f'the setups "{slugs[short]}" and "{name}" share the folder name {short}'
                self.faults.add(entry.origin, message)
            slugs[short] = name
            node = nulls_are_empty(entry.node)
            if not isinstance(node, Mapping):
                message = f"setups.{name} must be a mapping, not {found(node)}"
                self.faults.add(node.origin, message, f"write {name}: {{norm: {{kind: …}}}}")
                continue
            for key, inner in node.entries.items():
                if key == "seed":
                    hint = "seeds are shared by all setups, so that differences are paired"
                    self.faults.add(inner.origin, "seed is not a key of a setup", hint)
                elif key not in keys.SETUP_KEYS:
                    message, hint_or_none = keys.no_top_key(key, keys.SETUP_KEYS, "a setup")
                    self.faults.add(inner.origin, message, hint_or_none)
            patch = {key: self.block(key, node, key) for key in keys.BLOCKS if key in node.entries}
            own: tuple[Axis, ...] = ()
            if "axes" in node.entries:
                entry = node.entries["axes"]
                own = axes.read_own_axes(name, entry, axis_names, overs, self.faults, self.notes)
            result.append(Setup(name, patch, own))
        return tuple(result)

    def check(self, base: Tree, setups: tuple[Setup, ...]) -> None:
        """Judges what is written even where every run overrides it."""
        for name, block in base.items():
            self.faults.extend(check_block(name, block, whole=False)[1])
        for setup in setups:
            tree = merged(base, setup.patch)
            for name in setup.patch:
                problems = check_block(name, tree[name], whole=False)[1]
                self.faults.extend(problems, setup.name)

    def text(self, key: str, entry: Entry | None) -> str | None:
        if entry is None or is_null(entry.node):
            return None
        if isinstance(entry.node, Scalar) and isinstance(entry.node.value, str):
            return entry.node.value
        hint = None
        if isinstance(entry.node, Scalar):
            hint = f'write "{found(entry.node)}", in quotes'
        message = f"{key} must be text, not {found(entry.node)}"
        self.faults.add(entry.node.origin, message, hint)
        return None

    def name(self, entry: Entry | None, path: Path) -> str:
        text = self.text("experiment", entry)
        if text is None or entry is None:
            return default_experiment(str(path))
        if not slug(text):
            message = f"experiment: {found(entry.node)} leaves no name for a folder"
            self.faults.add(entry.node.origin, message, "use a letter or a digit")
        return slug(text) or default_experiment(str(path))

    def label(self, setups: tuple[Setup, ...], sets: Tree) -> str | None:
        entry = self.root.entries.get("setup")
        text = self.text("setup", entry)
        if entry is None or text is None:
            return None
        if setups:
            self.faults.add(entry.origin, "setup stands beside setups", "give one of them")
        elif not slug(text):
            self.faults.add(entry.node.origin, f"setup: {found(entry.node)} leaves no name")
        # The label described another norm.
        return None if "norm" in sets else text

    def swept(self) -> tuple[str, ...]:
        entry = self.root.entries.get("swept")
        if entry is None or is_null(entry.node):
            return ()
        if not isinstance(entry.node, Sequence):
            message = f"swept must be a list of keys, not {found(entry.node)}"
            self.faults.add(entry.node.origin, message)
            return ()
        result = []
        for item in entry.node.items:
            value = item.value if isinstance(item, Scalar) else None
            if not isinstance(value, str):
                message = f"swept must be a list of keys, not of {found(item)}"
                self.faults.add(item.origin, message)
            elif not keys.known(tuple(value.split("."))):
                self.faults.add(item.origin, *keys.no_dotted_key(tuple(value.split("."))))
            elif value in result:
                self.faults.add(item.origin, f"swept names {value} twice")
            else:
                result.append(value)
        return tuple(result)

    def tune(self, entry: Entry | None, grid: tuple[Axis, ...]) -> Tune | None:
        if entry is None or is_null(entry.node):
            return None
        node, names = entry.node, [axis.name for axis in grid]
        if not isinstance(node, Mapping):
            message = f"tune must be {{axis: …, by: …}} or null, not {found(node)}"
            self.faults.add(node.origin, message)
            return None
        for key, inner in node.entries.items():
            if key not in ("axis", "by"):
                close = nearest(key, ("axis", "by"))
                hint = f"did you mean tune.{close}?" if close else "allowed: axis and by"
                self.faults.add(inner.origin, f"tune.{key} is not a key of tune", hint)
        axis = self.choice("tune.axis", node, names, None)
        by = self.choice("tune.by", node, list(METRICS), METRICS[0])
        return Tune(axis, by) if axis and by else None

    def choice(
        self, dotted: str, node: Mapping, allowed: list[str], default: str | None
    ) -> str | None:
        entry = node.entries.get(dotted.rpartition(".")[2])
        if entry is None:
            if default is None:
                self.faults.add(node.origin, f"{dotted} is missing", "it names one of the axes")
            return default
        value = entry.node.value if isinstance(entry.node, Scalar) else None
        if isinstance(value, str) and value in allowed:
            return value
        words = listing(allowed) if allowed else "one of the axes, and there are none"
        close = nearest(value, allowed) if isinstance(value, str) else None
        message = f"{dotted} must be {words}, not {found(entry.node)}"
        self.faults.add(entry.node.origin, message, f"did you mean {close}?" if close else None)
        return None
