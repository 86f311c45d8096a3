"""Causes that show outside of what running statistics say of themselves: other modes, several
calls, and what is left where nothing explains a gap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor
from torch.nn.modules.instancenorm import _InstanceNorm

from bnbench.diagnosis import criteria
from bnbench.diagnosis.case import Case
from bnbench.diagnosis.criteria import harms, off
from bnbench.diagnosis.evidence import Evidence
from bnbench.diagnosis.result import Finding, LayerReading, by_a_factor, figures, finding, percent
from bnbench.running_statistics import STATISTICS
from bnbench.wording import cut

BY_FUNCTION = (
    "forward() normalizes by statistics that no module has as running_mean and running_var, so "
    "they were not looked at"
)
UNITS = 2.0
"""Times the loss of the best constant: no training makes more of labels in the outputs' unit."""

OTHER_UNITS = (
    "is it trained? Or are the outputs in another unit than the labels, which the training loop "
    "scales: then give labels in theirs, or score="
)
OWN_MODULES = (
    "give each normalization a module of its own that names them so (as nn.BatchNorm2d), and ask "
    "again"
)


def in_other_modes(case: Case) -> Iterator[Finding]:
    """What differs between the modes with the same statistics in both."""
    modes, there = case.modes, case.modes.training
    if there is not None:
        apart = 0.0
        if case.evidence.task.kind == "outputs" and modes.evaluation.answers is not None:
            spread = modes.evaluation.answers.var(0).mean().item()
            apart = there.differs(modes.evaluation) / max(spread, 1e-12)
        if harms(modes.evaluation, there) or apart > criteria.HARM_LOSS:
            yield finding(
                "mode-branch",
                "under the same batch statistics and without dropout, "
                f"{there.figures} where the rest of the network is in train(), "
                f"{modes.evaluation.figures} where it is in eval()"
                + (f"; the outputs differ by {apart:.0%} of their variance" if apart else "")
                + (f"; {BY_FUNCTION}" if modes.by_function else ""),
                do=OWN_MODULES if modes.by_function else "",
            )
    share = criteria.padding(case.train.images)
    if share >= criteria.PADDED and case.evidence.survey.of("exchanged"):
        yield finding(
            "padding-counted",
            f"{share:.0%} of the positions in the training loader's batches are zeros before "
            "or after a sequence, and the layers' means and variances count them: what a sequence "
            "gives depends on the longest one next to it",
            harmful=False,
        )
    if modes.moved:
        yield finding(
            "statistics-moved-in-eval",
            f"a forward pass in eval mode changes {cut([*modes.moved])}",
            harmful=False,
        )


def by_call(case: Case) -> Iterator[Finding]:
    """Layers that train() and eval() use on different groups of values: several calls in a forward
    pass, each image by itself."""
    own = case.train.own
    if own.by_call is not None and harms(own.population, own.by_call):
        apart = {
            each: criteria.calls_apart(own.pools[each.name], each.eps)
            for each in case.tracking
            if len(own.pools[each.name].calls) > 1
        }
        worst = max(apart, key=lambda each: sum(apart[each]))
        mean, variance = apart[worst]
        calls = len(own.pools[worst.name].calls)
        yield finding(
            "reused-layer",
            f"a forward pass calls layer {worst.name} {calls} times, on inputs whose means are "
            f"up to {mean:.2f} standard deviations apart{by_a_factor('their', variance)} "
            f"({case.some(list(apart))} several calls); train() "
            "normalizes each call by its own statistics, eval() all by the same ones: "
            f"{own.population.figures} under population statistics of all calls, "
            f"{own.by_call.figures} under those of each call",
            list(apart),
        )
    by_image = [each for each in case.tracking if isinstance(case.norms[each.name], _InstanceNorm)]
    if by_image and harms(own.population, own.shuffled):
        yield finding(
            "instance-norm-tracks",
            f"{case.some(by_image)} track_running_stats=True and normalize each image by "
            "itself in train(), and by an average over images in eval(): "
            f"{own.shuffled.figures} as in train(), {own.population.figures} under "
            "population statistics",
            by_image,
        )


def of_a_mismatch(case: Case) -> Finding:
    """Why running statistics do not fit, where neither age nor momentum says it."""
    layers, calls, modes = case.tracking, case.evidence.survey.calls, case.modes
    far = sorted(filter(off, layers), key=criteria.rank, reverse=True)
    first = next((each for each in layers if each.name == next(iter(calls))), None)
    if first is not None and far == [first] and len(layers) > 1:
        variance = case.pools[first.name].variance
        buffer = cast(Tensor, getattr(case.norms[first.name], STATISTICS[1]))
        running = buffer.double().flatten().cpu()
        factor = ((running + first.eps) / (variance + first.eps)).median().item()
        if factor >= criteria.OUTLIER:
            return finding(
                "outlier-batch",
                f"the running variances of layer {first.name}, the first, are {factor:,.0f} times "
                f"the population's, those of later layers fit; {case.costs}",
                far,
            )
    in_training = "those of passes with the rest of the network in train()"
    still = modes.still if modes.training is not None else None
    if fits := case.fit_better(layers, still, in_training, case.pools, "of passes in eval mode"):
        return finding(
            "mode-branch",
            f"{fits}: forward() feeds its layers otherwise there, without dropout too; "
            f"{case.costs}",
            far,
        )
    if fits := _fit_dropout(case):
        return finding("dropout-before-norm", f"{fits}; {case.costs}", far)
    worst = max(layers, key=criteria.away, default=None)
    few = len(far) <= criteria.FEW * len(layers)
    if worst and few and criteria.away(worst) < criteria.TRAILING and worst.window > 0:
        return finding(
            "mismatched",
            f"no layer is far off, and all are a little, which this network magnifies (layer "
            f"{worst.name}: {worst.errors}): running statistics average over {worst.window:,.0f} "
            f"batches, and the weights moved in that time; {case.costs}",
            layers,
            do="recalibrate (--fix), and let the learning rate fall towards the end of training; "
            "if the weights are an average (EMA, SWA), the trained model, given as `live`, tells",
        )
    where = f"layer {far[0].name}: {far[0].errors}; " if far else ""
    # A count that is missing, or 0 after a conversion, says nothing.
    often = all(each.updates for each in far or layers)
    return finding(
        "mismatched",
        "running statistics do not belong to these weights on these images"
        f"{', though they were updated often enough' if often else ''}; {where}{case.costs}",
        far,
    )


def unexplained(case: Case) -> Iterator[Finding]:
    """What is left where running statistics are worse than the batch's and nothing says why."""
    train, there = case.train, case.evidence.eval
    for what, worse, better in (
        ("training", train.running, case.evidence.batch),
        ("training", train.running, train.own.shuffled),
        *([("evaluation", there.running, there.own.shuffled)] if there else []),
    ):
        if harms(worse, better):
            text = (
                f"on the {what} images {worse.figures} under running statistics, {better.figures} "
                f"under batch statistics, and {train.own.population.figures} on the training "
                "images under population statistics"
            )
            far = list(filter(off, case.tracking))
            if fits := _fit_dropout(case):
                yield finding("dropout-before-norm", f"{fits}; {text}", far)
            else:
                yield finding("unexplained-gap", text, far)
            return


def at_chance(evidence: Evidence) -> Iterator[Finding]:
    """Whether no statistics give more than the best constant answer does."""
    task, train = evidence.task, evidence.train
    labels = None if task.labels is None else train.images.column(task.labels)
    if labels is None:
        return
    constant = task.by_constant(labels)
    enough = criteria.EXPLAINED * constant.loss
    read = (train.running, evidence.batch, train.own.shuffled, train.own.population)
    # Of labels that are all the same, there is nothing to know.
    if not round(constant.loss, 9) or any(harms(constant, each, loss=enough) for each in read):
        return
    rights = [each.accuracy for each in read if each.accuracy is not None]
    best = figures(min(each.loss for each in read), max(rights, default=None), constant.unit)
    what = "mean" if task.kind == "values" else "frequencies"
    worse = task.kind == "values" and min(each.loss for each in read) > UNITS * constant.loss
    yield finding(
        "at-chance",
        f"{best} at best under running, batch and population statistics, {constant.figures} if the "
        f"answer is always the same, the labels' {what}",
        harmful=False,
        do=OTHER_UNITS if worse else "",
    )


def age(layer: LayerReading, case: Case) -> str:
    """Why a layer's running statistics are of earlier weights."""
    population = case.pools[layer.name]
    if criteria.begun(layer, population):
        variance = population.variance.median().item()
        small = f", whose variance is {variance:.2g} where the initial one is 1"
        return (
            f"after {layer.updates:,} updates at momentum {layer.momentum:g} the initial values "
            f"still weigh {percent(layer.initial_weight or 0.0)} in the running statistics of "
            f"layer {layer.name}{small if variance < 1 else ''}"
        )
    if layer.momentum is None:
        why = f"layer {layer.name} averages over all batches since training began (momentum None)"
    elif layer.momentum == 0:
        why = f"at momentum 0, layer {layer.name} takes in no batch"
    else:
        why = (
            f"at momentum {layer.momentum:g}, layer {layer.name} averages over the last "
            f"{layer.window:,.0f} batches"
        )
    return f"{why}, and the weights moved"


def _fit_dropout(case: Case) -> str:
    """What says that running statistics are those of passes with dropout; empty if nothing does."""
    modes = case.modes
    return case.fit_better(
        case.tracking, modes.noisy, "those with it", modes.still, "of passes without dropout"
    )
