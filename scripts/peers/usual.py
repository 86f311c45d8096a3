"""The usual script: plain PyTorch with a DataLoader and a SummaryWriter, as tutorials write it.

The other peers train the same network on the same images for as many steps.
"""

from __future__ import annotations

import argparse
import functools

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, random_split
from torch.utils.tensorboard import SummaryWriter
from torchvision import datasets, transforms

MEAN, STD = 0.2860, 0.3530  # of Fashion-MNIST's training pixels / 255
BATCH = 64
EVALUATION_BATCH = 500
VALIDATION = 1000
WARMUP = 0.05  # of the steps


@functools.cache  # a process that trains several networks reads the images once
def images(root: str, *, train: bool, in_memory: bool) -> Dataset:
    to_input = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    dataset = datasets.FashionMNIST(root, train=train, transform=to_input)
    if not in_memory:
        return dataset
    pixels = dataset.data.unsqueeze(1).float() / 255
    return TensorDataset((pixels - MEAN) / STD, dataset.targets)


def loaders(
    root: str, seed: int, *, in_memory: bool = True, workers: int = 0
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """For training, validation and test; `in_memory`: standardized once, not image by image."""
    both = images(root, train=True, in_memory=in_memory)
    generator = torch.Generator().manual_seed(seed)
    parts: list[Subset] = random_split(both, [len(both) - VALIDATION, VALIDATION], generator)
    test = images(root, train=False, in_memory=in_memory)
    more = {"num_workers": workers, "persistent_workers": workers > 0}
    train = DataLoader(parts[0], BATCH, shuffle=True, drop_last=True, generator=generator, **more)
    return train, DataLoader(parts[1], EVALUATION_BATCH, **more), DataLoader(test, EVALUATION_BATCH)


def block(before: int, after: int, stride: int, norm: str) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, 3, stride, padding=1, bias=norm == "none")
    match norm:
        case "batch":
            return [conv, nn.BatchNorm2d(after), nn.ReLU()]
        case "group":
            return [conv, nn.GroupNorm(4, after), nn.ReLU()]
        case _:
            return [conv, nn.ReLU()]


def network(norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    shapes = [(1, 8, 1), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1)]
    for before, after, stride in shapes:
        layers += block(before, after, stride, norm)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def sgd(model: nn.Module, lr: float, steps: int) -> tuple:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, steps, pct_start=WARMUP, cycle_momentum=False
    )
    return optimizer, schedule


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in loader)
    model.train()
    return right / len(loader.dataset)


def train(
    root: str,
    *,
    norm: str = "batch",
    lr: float = 0.1,
    seed: int = 0,
    epochs: int = 3,
    in_memory: bool = True,
    workers: int = 0,
    logs: str = "logs",
) -> dict:
    """One run: evaluated after each epoch, and on the test images at the end."""
    torch.manual_seed(seed)
    loader, val, test = loaders(root, seed, in_memory=in_memory, workers=workers)
    model = network(norm)
    optimizer, schedule = sgd(model, lr, epochs * len(loader))
    steps = 0
    with SummaryWriter(logs) as writer:
        for _ in range(epochs):
            for x, y in loader:
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                steps += 1
                if steps % 10 == 0:
                    writer.add_scalar("train/loss", loss.item(), steps)
            writer.add_scalar("val/accuracy", accuracy(model, val), steps)
    torch.save(model.state_dict(), f"{logs}/last.pt")
    return {"steps": steps, "accuracy": accuracy(model, test)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--norm", default="batch")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--in-memory", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--logs", default="logs")
    print(train(**vars(parser.parse_args())))
