"""One of two processes that train together: `python two_processes.py RANK FOLDER`. Prints what is
said in each loop, as JSON."""

from __future__ import annotations

import json
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import bnbench
from tests.watching.loops import backward, data, network, optimizer


def averaged_by_hand(model: nn.Module, by: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)
        parameter.grad /= 2
    by.step()


def trained(kind: str, folder: Path, rank: int) -> list[Any]:
    net = network()
    model: nn.Module = net
    if kind != "by hand":
        model = DistributedDataParallel(net, broadcast_buffers=kind == "broadcast")
    by = optimizer(net)
    unwatched = nullcontext() if rank and kind == "one is watched" else None
    watching = bnbench.watch(model, val=data(), every=8, folder=folder / kind)
    with unwatched or watching:
        for x, y in (batch for _ in range(3) for batch in data()):
            by.zero_grad()
            backward(nn.functional.cross_entropy(model(x[rank::2]), y[rank::2]))
            if kind == "by hand":
                averaged_by_hand(net, by)
            else:
                by.step()
    return [[each.name, list(each.layers), each.evidence] for each in watching.findings]


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), 2)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    kinds = ("broadcast", "not broadcast", "by hand", "one is watched")
    found = {kind: trained(kind, folder, rank) for kind in kinds}
    dist.barrier()
    print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
