"""Networks that take their normalization as an argument, one file a family.

`plain`: stages of convolutions. `mlp`: fully connected layers. `resnet`: residual blocks, post- and
pre-activation. `torchvision_classifier`: torchvision's networks. `recipe`: how norm, activation and
placement are handed to a network. `initialization`: initial weights, paired across setups.
`normalization`: which parts of a network are its norms, and training them alone.
"""

from bnbench.models.initialization import Initialization, initialize
from bnbench.models.mlp import MLP
from bnbench.models.normalization import (
    Description,
    describe,
    normalization_layers,
    train_only_norm,
    under_the_name_norm,
)
from bnbench.models.plain import Plain
from bnbench.models.recipe import Recipe
from bnbench.models.resnet import ResNet
from bnbench.models.torchvision_classifier import torchvision_classifier, torchvision_names

__all__ = [
    "MLP",
    "Description",
    "Initialization",
    "Plain",
    "Recipe",
    "ResNet",
    "describe",
    "initialize",
    "normalization_layers",
    "torchvision_classifier",
    "torchvision_names",
    "train_only_norm",
    "under_the_name_norm",
]
