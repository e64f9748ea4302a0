"""What can be loaded is let pass by the check of names in headers, which comes before torch is imported."""

import pytest

from tiltmeter.cli.early.names import check_sae_files
from tiltmeter.saes import loading


@pytest.fixture(autouse=True)
def let_pass_early(monkeypatch):
    load = loading._load_path

    def checked(path, *rest):
        found = load(path, *rest)
        check_sae_files(path)
        return found

    monkeypatch.setattr(loading, "_load_path", checked)
