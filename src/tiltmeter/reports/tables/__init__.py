"""The numbers of figures and claims, as CSV and LaTeX."""
