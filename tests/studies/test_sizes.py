"""How much a figure was measured on, in words."""

import numpy as np
import pytest
import xarray as xr

from tiltmeter.studies.sizes import measured_on


def dataset(sequences, documents=None):
    data = xr.Dataset({"kl": (("step", "sequence"), np.zeros((1, sequences)))})
    return data if documents is None else data.assign_coords(document=("sequence", documents))


@pytest.mark.parametrize(
    ("used", "words"),
    [
        ({"a": dataset(24)}, "Measured on 24 sequences."),
        ({"a": dataset(3, [5, 5, 7])}, "Measured on 3 sequences of 2 documents."),
        ({"a": dataset(1, [5])}, "Measured on 1 sequence of 1 document."),
        ({"a": dataset(16_000), "b": dataset(16_000)}, "Measured on 16,000 sequences."),
        ({"a": dataset(24), "b": dataset(8), "c": dataset(24)}, "Measured on 24 sequences (a, c); 8 sequences (b)."),
        ({"facts": xr.Dataset({"nearest": (("sae", "sequence"), np.zeros((2, 5)))})}, ""),
        ({}, ""),
    ],
)
def test_sequences_and_documents_are_counted(used, words):
    assert measured_on(used) == words
