"""One step without a trace, for networks and layers that configuration cannot see into."""

from __future__ import annotations

import torch

from bnbench.build import build_run, resolve_device
from bnbench.config import CustomModel, CustomNormConfig, RunConfig, TorchvisionModel
from bnbench.errors import ConfigError, Fault
from bnbench.runner.execute import Settings


def opaque(config: RunConfig) -> bool:
    """Whether only building shows if network and normalization fit together."""
    return isinstance(config.model, TorchvisionModel | CustomModel) or isinstance(
        config.norm, CustomNormConfig
    )


def rehearse(config: RunConfig, settings: Settings) -> None:
    """Build the run and take one step. Raises ConfigError where it cannot train."""
    device = resolve_device(settings.device or config.compute.device)
    run, _ = build_run(config, device, announce=settings.announce)
    try:
        images, labels = run.batch_at(0)
        torch.nn.functional.cross_entropy(run.model(images), labels).backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        # Whatever a stranger's code raises: it would raise in every run of this setup.
        message = f"the first step fails: {type(error).__name__}: {error}"
        raise ConfigError([Fault(where=f"setup {config.setup}", message=message)]) from error
