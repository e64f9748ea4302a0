"""The same work with other tools: as a good user of each writes it, and as an expert does by hand."""
