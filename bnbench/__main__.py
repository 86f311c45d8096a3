"""Where a process begins: `bnbench`, and `python -m bnbench`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is being imported shows no traceback either."""
    try:
        from bnbench.cli import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
