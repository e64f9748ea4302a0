"""Benchmarks: speed and accuracy of tiltmeter and of other tools on the same work.

`python -m benchmarks` measures perturbation sweeps (`run`). `python -m benchmarks.sae_training` measures SAE training;
`saelens_trainer` and `paired_timing` belong to it.
"""
