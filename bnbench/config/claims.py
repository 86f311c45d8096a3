"""The claims of an experiment's file: what is compared, judged as far as the file alone can be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bnbench.config import schema, yaml
from bnbench.config.experiments import Arm, Axis, Claim, Published, Setup
from bnbench.config.faults import Faults, Place
from bnbench.config.identity import fits, identity, point
from bnbench.config.metrics import (
    LR,
    Column,
    EndReading,
    GapReading,
    Metric,
    ProbeReading,
    Speed,
    ToTarget,
    UsableLr,
    parse_metric,
)
from bnbench.config.sentences import Model, validated
from bnbench.config.yaml import Source, resolved
from bnbench.wording import did_you_mean, listing, nearest, shortened, slug

ASKED = Source("--claim", "", 1).place()
"""Of faults of what the command line asks for."""


@dataclass(slots=True)
class ClaimReader:
    """Reads the claims of a file, then what is published; whatever is wrong becomes a fault.

    `parse`: gives the metric of a name. Raises ValueError with a hint where there is none.
    """

    source: Source
    setups: tuple[Setup, ...]
    axes: tuple[Axis, ...]
    tune: schema.TuneConfig | None
    faults: Faults
    parse: Callable[[str], Metric] = parse_metric
    number: int = 0  # of the item that is read
    block: str = "claims"  # which holds it

    def read(self) -> tuple[Claim, ...]:
        """The claims in the file's order; one with a fault is left out."""
        claims: dict[str, Claim] = {}
        for model in self.items("claims", schema.ClaimConfig):
            count = len(self.faults.found)
            claim = self.claim(model)
            if claim is None or len(self.faults.found) > count:
                continue
            if claim.id in claims:
                place = self.source.place(("claims", self.number))
                self.faults.add(place, f"two claims have the id {claim.id}")
            claims[claim.id] = claim
        return tuple(claims.values())

    def chosen(
        self, profiles: Mapping[str, Any], profile: str | None, asked: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        """The ids of the claims that the profile in force names; None: all. They are judged
        together, whichever are `asked` for.

        An id that no claim has is a fault, in every profile.
        """
        listed = self.listed("claims")
        ids = [str(each["id"]) for each in listed if isinstance(each, dict) and "id" in each]
        for name, patch in profiles.items():
            for number, each in enumerate((patch or {}).get("claims") or ()):
                if each not in ids:
                    place = self.source.place(("profiles", name, "claims", number))
                    message = f"profiles.{name}.claims: {shortened(each)} is not a claim"
                    self.faults.add(place, message, _among("claims", each, ids, "the file"))
        judged = {name: (patch or {}).get("claims") for name, patch in profiles.items()}
        named = None if profile is None else judged[profile]
        for each in asked:
            if each not in ids:
                message = f"{shortened(each)} is not a claim"
                self.faults.add(ASKED, message, _among("claims", each, ids, "the file"))
            elif named is not None and each not in named:
                message = f"{shortened(each)} is not a claim of profile {profile}"
                of = [name for name, its in judged.items() if its is None or each in its]
                do = f"take --set profile={of[0]}" if of else "name it in profiles: NAME: claims:"
                self.faults.add(ASKED, message, do)
        return named if named is None else tuple(named)

    def listed(self, block: str) -> tuple[Any, ...]:
        """The items of a list of the file, sound or not."""
        listed = self.source.data.get(block) if isinstance(self.source.data, dict) else None
        return listed if isinstance(listed, tuple) else ()  # else the file's check names it

    def items(self, block: str, model: type[Model]) -> Iterator[Model]:
        """Those that are sound; the file's check names the flaws of the others."""
        self.block = block
        for number, values in enumerate(self.listed(block)):
            self.number, (item, _) = number, validated(model, values)
            if item is not None:
                yield item

    def add(self, key: str, message: str, hint: str | None = None) -> None:
        """Adds a fault at a key; `message` begins after the item's name."""
        place = self.source.place((self.block, self.number, key))
        item = f"{self.block}[{self.number}]"
        said = message.lstrip(".: ") if self.source.rank else f"{item}{message}"
        self.faults.add(place, said, hint)

    def published(self) -> tuple[Published, ...]:
        """What others have published, in the file's order; an item with a fault is left out."""
        found = list[Published]()
        for model in self.items("published", schema.PublishedConfig):
            metric = self.metric(model.metric)
            if metric is None:
                continue
            if isinstance(metric, UsableLr):
                self.add("metric", f".metric {model.metric} is of many runs, not of one")
            elif (arm := self.arm("of", model.of, set())) is not None:
                found.append(Published.model_construct(**dict(model), measured=metric, arm=arm))
        return tuple(found)

    def metric(self, text: str) -> Metric | None:
        """What is measured; a fault where it is not known."""
        try:
            return self.parse(text)
        except ValueError as error:
            self.add("metric", f'.metric "{shortened(text)}" is not a metric', str(error))
            return None

    def claim(self, model: schema.ClaimConfig) -> Claim | None:
        """The claim; None without a metric."""
        if slug(model.id) != model.id:
            hint = f"write {slug(model.id)}" if slug(model.id) else "use letters, digits, -, _"
            self.add("id", f'.id "{shortened(model.id)}" is no name', hint)
        metric = self.metric(model.metric)
        if metric is None:
            return None
        self.check_axes(model, metric)
        used = {*model.at, model.slope_over}
        if isinstance(metric, UsableLr):
            used.add(LR)
        elif self.tune is not None:
            used.add(self.tune.axis)
        sound = len(self.faults.found)
        better, worse = (
            self.arms(key, given or (), used)
            for key, given in (("better", model.better), ("worse", model.worse))
        )
        if worse and len(worse) != len(better) and len(self.faults.found) == sound:
            self.add("worse", f".worse must name as many setups as better: {len(better)}")
        if worse and worse == better:
            self.add("worse", ": better and worse are the same", "name the opponent")
        return Claim.model_construct(
            **dict(model), measured=metric, better_arms=better, worse_arms=worse
        )

    def check_axes(self, model: schema.ClaimConfig, metric: Metric) -> None:
        """Adds faults where the claim needs an axis or a target that is not there."""
        names = [axis.name for axis in self.axes]
        usable = isinstance(metric, UsableLr)
        if model.target is None and (usable or isinstance(metric, ToTarget)):
            message = f".target is missing: {model.metric} needs an accuracy"
            self.add("metric", message, "write target: 0.7")
        if usable and LR not in names:
            message = f": {model.metric} needs learning rates to try"
            self.add("metric", message, f"make {LR} an axis")
        over = [] if model.slope_over is None else [("slope_over", model.slope_over)]
        for key, name in (*over, *(("at", each) for each in model.at)):
            if name not in names:
                self.no_axis(key, name)

    def no_axis(self, key: str, name: str) -> None:
        """Adds a fault about a name that is no axis."""
        names = [axis.name for axis in self.axes]
        message = f".{key}: {shortened(name)} is not an axis"
        self.add(key, message, _among("axes", name, names, "the experiment"))

    def arms(
        self, key: str, given: str | tuple[str, ...], used: set[str | None]
    ) -> tuple[Arm, ...]:
        """The setups of one side of the comparison."""
        texts = (given,) if isinstance(given, str) else given
        return tuple(arm for text in texts if (arm := self.arm(key, text, used)))

    def arm(self, key: str, text: str, used: set[str | None]) -> Arm | None:
        """`bn`, `bn@32` where one axis is left to choose on, or `bn@data.batch_size=32,…`."""
        name, _, rest = text.partition("@")
        known = {each.name: each for each in self.setups}
        if text in known:  # a table's setups may have an @ in their names
            name, rest = text, ""
        if name not in known:
            hint = _among("setups", name, known, "the experiment")
            self.add(key, f".{key}: {shortened(name)} is not a setup", hint)
            return None
        own = {axis.key: axis for axis in known[name].axes}
        axes = [own.get(axis.key, axis) for axis in self.axes]
        free = [axis.name for axis in axes if axis.name not in used and len(axis.values) > 1]
        at: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            axis, equals, value = part.rpartition("=")
            if not equals and len(free) == 1:
                axis = free[0]
            elif not axis:
                fits = [each.name for each in axes if value in map(str, each.values)]
                hint = f"write {name}@{(fits or free or ['data.batch_size'])[0]}={value}"
                message = f".{key}: {shortened(part)} could be a value of several axes or none"
                self.add(key, message, hint)
                return None
            elif axis not in [each.name for each in self.axes]:
                self.no_axis(key, axis)
                return None
            at[axis] = resolved(value.strip())
        return Arm(name, tuple(at.items()))


def _among(what: str, name: str, names: Collection[str], where: str) -> str:
    """The hint for a name that is none of these: the nearest, else all."""
    there = f"{what}: {listing(names, 'and')}" if names else f"{where} has no {what}"
    return did_you_mean(nearest(name, names)) or there


def claim_of_arguments(values: Mapping[str, Any]) -> Source:
    """The one claim that a command line asks for, as a file would have it."""
    more = {"down": "less", "two-sided": "other"}.get(values.get("direction", "up"), "more")
    says = f"{values['better']} has {more} {values['metric']} than {values.get('worse', 'zero')}"
    claim = {"id": "claim", "says": says, **values}
    return _sound(Source("the command line", rank=1, data={"claims": (claim,)}), Faults())


def claims_of_file(path: str) -> Source:
    """The claims of a file, or of a study's. Raises ConfigError with everything that is wrong."""
    faults = Faults()
    source = yaml.read(path, "", faults)
    data = source.data if isinstance(source.data, dict) else {}
    listed = data.get("claims")
    if not (isinstance(listed, tuple) and listed):
        if not faults.found:
            hint = "claims: lists them, as in a study"
            faults.add(Place(0, 0, 0, path), "there are no claims", hint)
        raise faults.error()
    return _sound(source, faults)


def _sound(source: Source, faults: Faults) -> Source:
    """The source. Raises ConfigError where a claim lacks a key, or has one that is wrong."""
    for flaw in validated(schema.ExperimentFile, {"claims": source.data["claims"]})[1]:
        message = flaw.message.removeprefix("claims[0]." if source.rank else "")
        faults.add(source.place(flaw.path, key=flaw.key), message, flaw.hint)
    if faults.found:
        raise faults.error()
    return source


def runs_of(claim: Claim, arm: Arm, runs: tuple[schema.RunConfig, ...]) -> list[schema.RunConfig]:
    """The runs that an arm is about: all seeds, and all values of the axes that it leaves open.

    A value that has no meaning in a setup is not asked for there.
    """
    return [run for run in runs if of_arm(arm, run, claim.at)]


def concern(
    claims: tuple[Claim, ...], run: schema.RunConfig, but_tuned: schema.TuneConfig | None = None
) -> bool:
    """Whether a run is of an arm of any of the claims. `but_tuned`: of one that asks for its value
    of that axis, whichever is the best."""
    return any(
        of_arm(arm, run, claim.at) and not takes_best(claim, arm, but_tuned)
        for claim in claims
        for arm in (*claim.better_arms, *claim.worse_arms)
    )


def takes_best(claim: Claim, arm: Arm, tune: schema.TuneConfig | None) -> bool:
    """Whether an arm has the value of the tuned axis that is chosen on validation."""
    asked = {*claim.at, *dict(arm.at), claim.slope_over}
    asked |= {LR} if isinstance(claim.measured, UsableLr) else set()
    return tune is not None and tune.axis not in asked


def of_arm(arm: Arm, run: schema.RunConfig, at: Mapping[str, Any] | None = None) -> bool:
    """Whether a run is of an arm, and has the values `at` of axes."""
    return run.setup == arm.setup and fits(run, {**(at or {}), **dict(arm.at)})


def doubts(
    claims: tuple[Claim, ...], runs: Iterable[schema.RunConfig], tune: schema.TuneConfig | None
) -> Iterator[tuple[Claim, str]]:
    """Why a claim cannot be judged from these runs, where it cannot; one of each cell will do."""
    runs = tuple(runs)
    for claim in claims:
        open_axes = {claim.slope_over, tune.axis if tune is not None else None}
        open_axes |= {LR} if isinstance(claim.measured, UsableLr) else set()
        chosen = {arm: runs_of(claim, arm, runs) for arm in (*claim.better_arms, *claim.worse_arms)}
        if reads_validation(claim) and not all(
            run.data.validation_size for of_arm in chosen.values() for run in of_arm
        ):
            yield claim, "it reads validation images, and data.validation_size is 0"
            continue
        if empty := [str(arm) for arm in chosen if not chosen[arm]]:
            yield claim, f"no run is {listing(empty)}{_at(claim)}"
            continue
        several = [
            f"{arm} has several values of {listing(left, 'and')}"
            for arm in chosen
            if (left := sorted(_varying(chosen[arm]) - open_axes))
        ]
        if several:
            yield claim, f"{several[0]}: name one, with @ or at:"
        elif claim.worse_arms:
            better, worse = (
                [{identity(run) for run in chosen[arm]} for arm in side]
                for side in (claim.better_arms, claim.worse_arms)
            )
            if better == worse:
                yield claim, "better and worse are the same runs"


def reads_validation(claim: Claim) -> bool:
    """Whether its metric, or the target that a probe's reading asks for, needs such images."""
    match claim.measured:
        case EndReading() | GapReading() | ToTarget() as metric:
            return metric.split == "val"
        case ProbeReading() | UsableLr():
            return claim.target is not None
        case Speed() | Column():
            return False


def _varying(runs: list[schema.RunConfig]) -> set[str]:
    """The axes of which the runs have several values."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        for key, value in point(run).items():
            seen.setdefault(key, set()).add(repr(value))
    return {key for key, values in seen.items() if len(values) > 1}


def _at(claim: Claim) -> str:
    return f" at {', '.join(f'{key}={value}' for key, value in claim.at.items())}" * bool(claim.at)
