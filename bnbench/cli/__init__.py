"""The command line: a file for each command, errors without tracebacks, exit codes.

Heavy packages are imported inside the commands, after the configuration has been checked:
`--help`, `--version` and a misspelled key need no torch.

root         the command itself
options      what several commands take
screen       where commands print
<command>    a function of the same name
"""

from bnbench.cli.compare import compare
from bnbench.cli.configs import configs
from bnbench.cli.diagnose import diagnose
from bnbench.cli.explain import explain
from bnbench.cli.report import report
from bnbench.cli.root import app
from bnbench.cli.status import status
from bnbench.cli.sweep import sweep
from bnbench.cli.tensorboard import tensorboard
from bnbench.cli.train import train

__all__ = ["app"]

# In the order in which `--help` lists them.
app.command()(train)
app.command()(sweep)
app.command()(status)
app.command()(report)
app.command()(compare)
app.command()(tensorboard)
app.command()(diagnose)
app.command()(explain)
app.add_typer(configs, name="configs")
