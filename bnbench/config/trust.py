"""Code that a configuration names: said before it is run, refused on request, and compared with
what a stored run recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bnbench.config import custom, identity, schema
from bnbench.errors import UsageError
from bnbench.wording import cut


@dataclass(frozen=True, slots=True)
class Trust:
    """What the user trusts. `say` gets a line for each file that will be run.

    `no_custom`: none of them may be. `accept_changes`: a stored run may meet other code than that
    which it was trained with.
    """

    say: Callable[[str], None]
    no_custom: bool = False
    accept_changes: bool = False

    def allow(self, configs: Iterable[schema.RunConfig]) -> None:
        """Say whose code these runs execute. Raises UsageError where none may be."""
        found = [each for config in configs for each in custom.targets(config).items()]
        for key, path in dict.fromkeys((key, path) for key, (path, _) in found):
            if self.no_custom:
                raise UsageError(
                    f"{key} names code that would be run: {path}",
                    do="leave out --no-custom if you trust that file",
                )
            for file in custom.files_of(path):
                self.say(f"runs the code in {file} ({key})")

    def require_same(self, folder: Path, config: schema.RunConfig, recorded: str) -> None:
        """Compare what the configuration in `folder` says now, the content of code and data that it
        names included, with the recorded identity. Raises UsageError."""
        if identity.identity(config) == recorded:
            return
        names = cut([str(path) for path, _ in custom.targets(config).values()])
        what = f"config.yaml or {names or 'data that it names'}"
        changed = f"{folder}: {what} has changed since the run was trained"
        if not self.accept_changes:
            raise UsageError(changed, do="undo the change, or go on all the same: --accept-changes")
        self.say(f"warning: {changed}")
