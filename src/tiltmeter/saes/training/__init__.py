"""SAE training: local, top-k, end-to-end, and end-to-end with downstream reconstruction."""
