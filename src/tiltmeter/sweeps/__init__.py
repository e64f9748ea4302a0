"""Sweeps and crossings: planned, measured shard by shard, and merged into labelled curves."""
