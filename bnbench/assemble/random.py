"""Random numbers: one generator for each purpose, all derived from the run's seed."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *purpose: object) -> torch.Generator:
    """Random numbers for one purpose of one run; other purposes and seeds are independent."""
    return torch.Generator().manual_seed(derived(seed, *purpose))


def derived(seed: int, *purpose: object) -> int:
    """A seed of 63 bits for one purpose of one run."""
    words = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest()) >> 1


def reseed_layers(seed: int, device: torch.device, step: int) -> None:
    """Let dropout and other layers that draw numbers draw those of this step."""
    value = derived(seed, "layers", step)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)
