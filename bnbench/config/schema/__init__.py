"""What a configuration may say: frozen models, one union for each block that comes in kinds.

The descriptions of the fields are the documentation of every key: they feed
`bnbench configs schema`, `bnbench explain` and the error messages.
"""

from bnbench.config.schema.base import *
from bnbench.config.schema.data import *
from bnbench.config.schema.experiment import *
from bnbench.config.schema.model import *
from bnbench.config.schema.norm import *
from bnbench.config.schema.probes import *
from bnbench.config.schema.run import *
