"""Tables of the numbers behind figures and claims, as CSV and LaTeX."""
