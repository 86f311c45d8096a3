"""Networks that take their normalization as an argument, one file a family.

`plain`: stages of convolutions. `mlp`: fully connected layers. `recipe`: how norm, activation and
placement are handed to a network. `initialization`: initial weights, paired across setups.
"""

from bnbench.models.initialization import Initialization, initialize
from bnbench.models.mlp import MLP
from bnbench.models.plain import Plain
from bnbench.models.recipe import Recipe

__all__ = ["MLP", "Initialization", "Plain", "Recipe", "initialize"]
