"""Where a process begins: `bnbench`, and `python -m bnbench`."""

import os
import sys

from bnbench import garbage

# Threads of torch's OpenMP, GNU's or Intel's, that wait for work leave their core to other
# processes. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")


def main() -> None:
    """Run the command line; Ctrl-C while it is being imported shows no traceback either."""
    garbage.pause()  # what works long, not only reads, calls `garbage.resume`
    try:
        from bnbench import guard
        from bnbench.cli import app, root, streams

        streams.prepare()
        if "--debug" not in sys.argv:
            guard.tell_what_nobody_catches(root.say)
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as end:
        code = end.code or streams.finish()
        guard.exit_code = code if isinstance(code, int) else 1
        sys.exit(code)
    finally:
        garbage.finish()


if __name__ == "__main__":
    main()
