"""The sweep with Hydra and its joblib launcher; the values of the grid are given to it as usual,
on the command line."""

from __future__ import annotations

import hydra
import usual
from hydra.core.config_store import ConfigStore

ConfigStore.instance().store(
    "config", {"root": "???", "norm": "batch", "lr": 0.1, "seed": 0, "epochs": 1}
)


@hydra.main(config_name="config", config_path=None, version_base=None)
def main(config) -> None:
    logs = hydra.core.hydra_config.HydraConfig.get().runtime.output_dir
    print(usual.train(**config, logs=logs), flush=True)


main()
