"""Ways in which code of the user's own misbehaves, and the files that they write."""

from __future__ import annotations

from dataclasses import dataclass

LAYER = '''\
import gc, os, random, signal, sys, threading, time, warnings
import numpy as np
import torch
from torch import nn

class Odd(BaseException):
    pass

class Mute(Exception):
    def __str__(self):
        sys.exit(9)

def forever(x):
    return forever(x)

{top}

class Layer(nn.Module):
    """BatchNorm that misbehaves in its third forward pass; a network's first step is fine."""

    def __init__(self, channels=1):
        super().__init__()
        self.norm, self.calls = nn.BatchNorm2d(channels), 0
        {made}

    {method}

    def forward(self, x):
        self.calls += 1
        y = self.norm(x)
        if self.calls == 3:
            {passed}
        return y

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = Layer(1)

    def forward(self, x):
        return self.norm(x).flatten(1)

class Network(nn.Module):
    """A classifier of images with that layer."""

    def __init__(self, in_channels, classes, make_norm):
        super().__init__()
        self.body = nn.Sequential(Layer(in_channels), nn.Conv2d(in_channels, 4, 3), make_norm(4))
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

def images():
    random = torch.Generator().manual_seed(0)
    for label in range(8):
        yield torch.randn(8, 1, 2, 2, generator=random), torch.arange(8) % 4

def make():
    return Net(), list(images())
'''


@dataclass(frozen=True)
class Way:
    """What stands at which place of the file. `fails`: which commands have no result then; `said`:
    in the sentence. `early`: a network's first step shows it already."""

    top: str = ""
    made: str = "pass"
    method: str = ""
    passed: str = "pass"
    fails: tuple[str, ...] = ("train", "diagnose")
    said: str = ""
    early: bool = False

    @property
    def source(self) -> str:
        """The file."""
        return LAYER.format(top=self.top, made=self.made, method=self.method, passed=self.passed)


RAISED = {
    "sys.exit(0)": Way(passed="sys.exit(0)", said="SystemExit: 0"),
    "sys.exit with words": Way(passed="sys.exit('no more')", said="SystemExit: no more"),
    "KeyboardInterrupt": Way(passed="raise KeyboardInterrupt", said="KeyboardInterrupt"),
    "GeneratorExit": Way(passed="raise GeneratorExit", said="GeneratorExit"),
    "StopIteration": Way(passed="raise StopIteration", said="StopIteration"),
    "a BaseException": Way(passed="raise Odd('x')", said="Odd: x"),
    "no message": Way(passed="raise ValueError", said="ValueError"),
    "no words": Way(passed="raise Mute", said="Mute"),
    "a page": Way(passed="raise ValueError('\\x1b[31m\\ud800 a\\n' * 99_999)", said="\\x1b[31m"),
    "no syntax": Way(passed="raise SyntaxError", said="SyntaxError"),
    "recursion": Way(passed="forever(x)", said="RecursionError"),
    "out of memory": Way(passed="raise MemoryError", said="MemoryError"),
    "assertion": Way(passed="assert x is None", said="AssertionError"),
    "chained": Way(passed="try: 1 / 0\n            except ArithmeticError: sys.exit(3)", said="3"),
    "None": Way(passed="y = None", said=""),
    # A diagnosis compares train() and eval() in the third pass; networks may give something else.
    "another shape": Way(passed="y = y[:1]", fails=("train",)),
    "a tuple": Way(passed="y = (y, y)", said=""),
    "another device": Way(passed="y = y.to('meta')", fails=("train",)),
    "at import": Way(top="sys.exit(0)", said="SystemExit: 0", early=True),
    "an import": Way(top="import nowhere", said="nowhere", early=True),
    "when made": Way(made="sys.exit(0)", said="SystemExit: 0", early=True),
    "when moved": Way(method="def _apply(self, *_): sys.exit(0)", said="SystemExit: 0", early=True),
    "train()": Way(method="def train(self, mode=True): raise Odd", said="Odd"),
    "modules": Way(
        method="def named_modules(self, *_, **__): sys.exit(0)", said="SystemExit", early=True
    ),
    "no weights": Way(made="self.to('meta')", said="", early=True),
}
"""There is no result, and a sentence with the file and line."""

SET = {
    name: Way(passed=passed, fails=())
    for name, passed in {
        "default dtype": "torch.set_default_dtype(torch.float64)",
        "default device": "torch.set_default_device('meta')",
        "default device, which is not there": "torch.set_default_device('cuda:99')",
        "threads": "torch.set_num_threads(2)",
        "deterministic": "torch.use_deterministic_algorithms(True)",
        "autocast": "torch.set_autocast_enabled('cpu', True)",
        "random numbers": "torch.manual_seed(1), np.random.seed(1), random.seed(1)",
        "working directory": "os.chdir('/')",
        "environment": "os.environ.clear(), os.environ.update(BNBENCH_RUNS_DIR='x')",
        "Ctrl-C": "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "warnings": "warnings.simplefilter('always')",
        "standard output": "sys.stdout = sys.stderr = None",
        "a function of Python's": "__import__('json').dumps = None",
        "a function of all": "__builtins__['open'] = None",
        "recursion limit": "sys.setrecursionlimit(10_000)",
        "megabytes": "print('\\x1b[2J' * 500_000)",
    }.items()
} | {
    # What comes after it in this step has no gradient.
    "no gradients": Way(
        passed="torch.set_grad_enabled(False)", fails=("train",), said="gradients were left"
    ),
    "early": Way(
        top="torch.set_default_dtype(torch.float64); os.chdir('/'); torch.set_num_threads(2)",
        made="warnings.simplefilter('always'); signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        fails=(),
    ),
}
"""It sets what belongs to the process."""

DELETES = Way(passed="os.path.exists(__file__) and os.remove(__file__)", fails=())
"""Its own file."""
