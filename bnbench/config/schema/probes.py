"""Optional measurements: one model a probe, all of them off unless named."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import Field, model_validator

from bnbench.config.schema.base import Block, Count, Positive

Images = Annotated[int, Field(ge=2, le=1_000_000_000)]
Steps = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100)]
Sizes = Annotated[tuple[Count, ...], Field(max_length=100)]


class Probe(Block):
    """Keys that every probe has."""

    every: Count = Field(
        2,
        description="evaluations from one reading to the next; the first reading is before the "
        "first step, the last one at the end",
    )


class RunningErrorProbe(Probe):
    """How far the running statistics of each layer are from the population's ("precise BN")."""

    images: Images = Field(
        1024, description='training images for population statistics ("precise BN")'
    )


class GapByLayerProbe(Probe):
    """What each layer's running statistics do to the loss."""

    images: Images = Field(128, description="validation images")


class DecompositionProbe(Probe):
    """Training noise, generalization and inconsistency (Wu & Johnson 2021)."""

    images: Images = Field(256, description="images of the training and of the validation split")
    norm_batch_sizes: Sizes = Field(
        (8,),
        description="examples that share statistics, in addition to training's and all `images`",
    )


class BatchNoiseProbe(Probe):
    """How much a prediction depends on the other images in the batch."""

    images: Images = Field(64, description="fixed images")
    companions: Annotated[int, Field(ge=2, le=1000)] = Field(
        16, description="random sets of other images"
    )


class ActivationDriftProbe(Probe):
    """How the distributions of activations move between readings (Ioffe & Szegedy 2015)."""

    images: Images = Field(512, description="fixed training images")


class GradientShiftProbe(Probe):
    """How much a layer's gradient changes when the layers before it take their step (Santurkar
    2018)."""


class LandscapeProbe(Probe):
    """How the loss and its gradient vary along the gradient (Santurkar 2018)."""

    steps: Steps = Field(
        (0.003, 0.01, 0.03, 0.1, 0.3),
        description="step sizes η: the loss is looked at in w − η·gradient",
    )
    relative_steps: Steps = Field(
        (0.003, 0.01, 0.03, 0.1),
        description="the same as lengths relative to the norm of each layer's weights",
    )


class StepStabilityProbe(Probe):
    """Which learning rates a single step survives (Bjorck 2018)."""

    steps: Steps = Field(
        tuple(float(f"{10 ** (k / 2):.2g}") for k in range(-10, 3)),
        description="step sizes η that are tried, in ascending order",
    )
    batches: Annotated[int, Field(ge=1, le=1000)] = Field(
        2, description="fixed training batches; the median is reported"
    )


class EffectiveLrProbe(Probe):
    """How large a step is for the direction of the weights."""


class HistogramsProbe(Probe):
    """How parameters, running statistics and the inputs of activations are distributed."""


class ShiftedImagesProbe(Probe):
    """Which statistics bear test images that are shifted: noise, blur, contrast, brightness (Li
    2016, Schneider 2020). It reads at the end alone, whatever `every` says."""

    images: Images = Field(2000, description="test images")


ProbeConfig: TypeAlias = (
    RunningErrorProbe
    | GapByLayerProbe
    | DecompositionProbe
    | BatchNoiseProbe
    | ActivationDriftProbe
    | GradientShiftProbe
    | LandscapeProbe
    | StepStabilityProbe
    | EffectiveLrProbe
    | HistogramsProbe
    | ShiftedImagesProbe
)


def _off(what: str) -> Any:
    return Field(
        False,
        description=what,
        json_schema_extra={"x-allowed": "settings such as {every: 2}, true or false"},
    )


class ProbesConfig(Block):
    """Optional measurements during training. A probe that is named, or true, is on."""

    running_error: RunningErrorProbe | bool = _off("running against population statistics")
    gap_by_layer: GapByLayerProbe | bool = _off("which layer's running statistics are to blame")
    decomposition: DecompositionProbe | bool = _off("training noise, generalization, inconsistency")
    batch_noise: BatchNoiseProbe | bool = _off(
        "how predictions depend on the other images in the batch"
    )
    activation_drift: ActivationDriftProbe | bool = _off("how distributions of activations move")
    gradient_shift: GradientShiftProbe | bool = _off(
        "how gradients change with the layers before them"
    )
    landscape: LandscapeProbe | bool = _off("how smooth the loss is along the gradient")
    step_stability: StepStabilityProbe | bool = _off("which learning rates one step survives")
    effective_lr: EffectiveLrProbe | bool = _off("the step size in terms of the weights' norm")
    histograms: HistogramsProbe | bool = _off("distributions, for TensorBoard's Histograms tab")
    shifted_images: ShiftedImagesProbe | bool = _off(
        "noisy, blurred, paler, brighter test images under each kind of statistics"
    )

    @model_validator(mode="before")
    @classmethod
    def _named_is_on(cls, values: Any) -> Any:
        """A probe without settings has its defaults: `landscape:`, `landscape: true`."""
        if not isinstance(values, dict):
            return values
        return {
            key: {} if value is None or value is True else value for key, value in values.items()
        }

    def chosen(self) -> dict[str, ProbeConfig]:
        """The probes that are on, by name."""
        settings = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: each for name, each in settings.items() if not isinstance(each, bool)}
