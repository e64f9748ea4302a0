"""Numbers from curves: means, intervals, shape statistics, crossings. NumPy and xarray in, numbers out."""
