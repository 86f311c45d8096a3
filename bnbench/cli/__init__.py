"""The command line: errors without tracebacks, exit codes, a function for each command.

Heavy packages are imported inside the commands, after the configuration has been checked:
`--help`, `--version` and a misspelled key need no torch.
"""

from bnbench.cli.configs import configs
from bnbench.cli.diagnose import diagnose
from bnbench.cli.explain import explain
from bnbench.cli.reading import compare, report, status, tensorboard
from bnbench.cli.root import app
from bnbench.cli.training import sweep, train

__all__ = ["app"]

# In the order in which `--help` lists them.
for command in (train, sweep, status, report, compare, tensorboard, diagnose, explain):
    app.command()(command)
app.add_typer(configs, name="configs")
