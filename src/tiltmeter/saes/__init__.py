"""Sparse autoencoders: one small interface, everyone's files behind it, and a trainer."""
