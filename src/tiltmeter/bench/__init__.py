"""Speed, measured beside other tools on the same work. Nothing of tiltmeter imports it."""
