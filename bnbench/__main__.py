"""`python -m bnbench`."""

from bnbench.cli import main

main()
