"""Training sparse autoencoders: local, end-to-end, end-to-end with downstream reconstruction, and top-k."""
