"""The same work written with each tool: plainly, as its tutorials do, and by hand, as an expert does."""
