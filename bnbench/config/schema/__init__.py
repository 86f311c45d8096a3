"""What a configuration may say: frozen models, one union for each block that comes in kinds.

The descriptions of the fields are the documentation of every key: they feed
`bnbench configs schema` and the error messages. Defaults here are the defaults of README.

base    closed mappings; types of values
data    datasets, splits, batches
model   networks
norm    normalizations
optim   optimizers and learning rates
probes  optional measurements
run     budget, computing; the run
claims  what an experiment is to show
"""

from bnbench.config.schema.base import TARGET, Block, Fraction, HalfOpen, NonNegative, Target
from bnbench.config.schema.claims import ClaimConfig
from bnbench.config.schema.data import (
    DataConfig,
    Fashion12kData,
    ImageData,
    ImageFolderData,
    SyntheticData,
    TorchvisionData,
)
from bnbench.config.schema.model import (
    CustomModel,
    MLPModel,
    ModelConfig,
    Network,
    PlainModel,
    ResNetModel,
    TorchvisionModel,
)
from bnbench.config.schema.norm import (
    BatchNormConfig,
    BatchRenormConfig,
    BatchStatistics,
    CustomNormConfig,
    EvoNormS0Config,
    FRNConfig,
    FrozenNormConfig,
    GhostNormConfig,
    GroupNormConfig,
    GroupWSConfig,
    InstanceNormConfig,
    InsteadOfActivation,
    LayerNormConfig,
    NoisyNormConfig,
    NoNorm,
    NormConfig,
    PlacedNorm,
    RMSNormConfig,
    ScaledWSConfig,
)
from bnbench.config.schema.optim import AdamWConfig, OptimConfig, Optimizer, SGDConfig
from bnbench.config.schema.probes import (
    ActivationDriftProbe,
    BatchNoiseProbe,
    DecompositionProbe,
    EffectiveLrProbe,
    GapByLayerProbe,
    GradientShiftProbe,
    HistogramsProbe,
    LandscapeProbe,
    ProbeConfig,
    ProbesConfig,
    RunningErrorProbe,
    StepStabilityProbe,
)
from bnbench.config.schema.run import (
    BUDGETS,
    DEFAULT_EPOCHS,
    DEVICE,
    SECONDS,
    ComputeConfig,
    Device,
    RunConfig,
    Seconds,
    TrainConfig,
)

__all__ = [
    "BUDGETS",
    "DEFAULT_EPOCHS",
    "DEVICE",
    "SECONDS",
    "TARGET",
    "ActivationDriftProbe",
    "AdamWConfig",
    "BatchNoiseProbe",
    "BatchNormConfig",
    "BatchRenormConfig",
    "BatchStatistics",
    "Block",
    "ClaimConfig",
    "ComputeConfig",
    "CustomModel",
    "CustomNormConfig",
    "DataConfig",
    "DecompositionProbe",
    "Device",
    "EffectiveLrProbe",
    "EvoNormS0Config",
    "FRNConfig",
    "Fashion12kData",
    "Fraction",
    "FrozenNormConfig",
    "GapByLayerProbe",
    "GhostNormConfig",
    "GradientShiftProbe",
    "GroupNormConfig",
    "GroupWSConfig",
    "HalfOpen",
    "HistogramsProbe",
    "ImageData",
    "ImageFolderData",
    "InstanceNormConfig",
    "InsteadOfActivation",
    "LandscapeProbe",
    "LayerNormConfig",
    "MLPModel",
    "ModelConfig",
    "Network",
    "NoNorm",
    "NoisyNormConfig",
    "NonNegative",
    "NormConfig",
    "OptimConfig",
    "Optimizer",
    "PlacedNorm",
    "PlainModel",
    "ProbeConfig",
    "ProbesConfig",
    "RMSNormConfig",
    "ResNetModel",
    "RunConfig",
    "RunningErrorProbe",
    "SGDConfig",
    "ScaledWSConfig",
    "Seconds",
    "StepStabilityProbe",
    "SyntheticData",
    "Target",
    "TorchvisionData",
    "TorchvisionModel",
    "TrainConfig",
]
