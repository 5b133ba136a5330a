"""`python -m multitune` is the command `multitune`."""

from multitune.cli import main

if __name__ == "__main__":
    main()
