"""A figure as data, drawn by matplotlib and by plotly.js."""
