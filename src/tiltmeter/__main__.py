"""`python -m tiltmeter`: the command line."""

from tiltmeter.cli.main import main

if __name__ == "__main__":
    main()
