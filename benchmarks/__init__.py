"""How long the same work takes with tiltmeter and with other tools, and how right the answers are."""
