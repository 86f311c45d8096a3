"""What a configuration may say: frozen models, one union for each block that comes in kinds.

The descriptions of the fields are the documentation of every key: they feed
`bnbench configs schema` and the error messages. Defaults here are the defaults of README.

base    closed mappings; types of values
data    datasets, splits, batches
model   networks
norm    normalizations
optim   optimizers and learning rates
run     budget, probes, computing; the run
"""

from bnbench.config.schema.base import TARGET, Block, Fraction, HalfOpen, NonNegative, Target
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
from bnbench.config.schema.run import (
    BUDGETS,
    DEFAULT_EPOCHS,
    DEVICE,
    SECONDS,
    ComputeConfig,
    Device,
    ProbesConfig,
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
    "AdamWConfig",
    "BatchNormConfig",
    "BatchRenormConfig",
    "BatchStatistics",
    "Block",
    "ComputeConfig",
    "CustomModel",
    "CustomNormConfig",
    "DataConfig",
    "Device",
    "EvoNormS0Config",
    "FRNConfig",
    "Fashion12kData",
    "Fraction",
    "FrozenNormConfig",
    "GhostNormConfig",
    "GroupNormConfig",
    "GroupWSConfig",
    "HalfOpen",
    "ImageData",
    "ImageFolderData",
    "InstanceNormConfig",
    "InsteadOfActivation",
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
    "ProbesConfig",
    "RMSNormConfig",
    "ResNetModel",
    "RunConfig",
    "SGDConfig",
    "ScaledWSConfig",
    "Seconds",
    "SyntheticData",
    "Target",
    "TorchvisionData",
    "TorchvisionModel",
    "TrainConfig",
]
