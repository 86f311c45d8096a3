"""The command line: errors without tracebacks, exit codes, a function for each command.

Heavy packages are imported inside the commands, after the configuration has been checked:
`--help`, `--version` and a misspelled key need no torch.
"""

from collections.abc import Callable

from bnbench.cli.configs import configs
from bnbench.cli.diagnose import diagnose
from bnbench.cli.explain import explain
from bnbench.cli.new import new
from bnbench.cli.reading import compare, report, status, tensorboard
from bnbench.cli.root import app as app
from bnbench.cli.root import examples
from bnbench.cli.sweeping import sweep
from bnbench.cli.training import train
from bnbench.cli.verdict import verdict

# In the order in which `--help` lists them, each with its examples.
COMMANDS: dict[Callable[..., None], tuple[str, ...]] = {
    new: ("", "--compare batch --batch-sizes 2,32 --better batch@32", "--compare group,own --yes"),
    train: ("default", "default --set norm.kind=layer --set optim.lr=0.3 --seed 1"),
    sweep: ("my-study.yaml --dry-run", "default --over data.batch_size=2,8,32 --seeds 6"),
    status: ("", "my-study --json"),
    report: ("my-study --figures pdf,png", "my-study --format latex"),
    compare: ("runs/my-study/bn_s00_1f3a9c2e runs/my-study/gn_s00_77b0c1d4", "bn_s00 gn_s00"),
    verdict: (
        "results.csv --metric dice --better gn --worse bn",
        "results.csv --claims claims.yaml --html verdicts.html",
    ),
    tensorboard: ("my-study", "my-study --port 6010 --open"),
    diagnose: ("train.py:make --checkpoint last.pt", "train.py:make --fix fixed.pt"),
    explain: ("norms", "norm.momentum"),
}
for command, typed in COMMANDS.items():
    name = command.__name__
    app.command(epilog=examples(*(f"{name} {each}".rstrip() for each in typed)))(command)
app.add_typer(configs, name="configs")
