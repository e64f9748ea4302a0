"""Charts described as data, and drawn by matplotlib and plotly.js."""
