"""File formats of sparse autoencoders, read and written."""
