"""`python -m u2net_platform` is `u2net`."""

from u2net_platform.cli import main

main()
