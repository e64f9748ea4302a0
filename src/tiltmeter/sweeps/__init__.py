"""Sweeps and crossings: plan them, measure them shard by shard, merge them into labelled curves."""
