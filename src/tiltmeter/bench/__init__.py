"""How long the same work takes with tiltmeter and with the tools that researchers use, and how right the answers are."""
