"""A run that is not kept has a directory while it lasts."""

from pathlib import Path

import pytest

from tiltmeter.runs.temporary import kept_or_temporary


def test_a_directory_of_the_users_is_kept(tmp_path):
    with kept_or_temporary(tmp_path / "run") as path:
        assert path == tmp_path / "run" and not path.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_temporary_one_is_deleted_however_the_run_ends(error):
    with pytest.raises(error), kept_or_temporary(None) as path:
        Path(path, "file").write_text("x")
        raise error
    assert not Path(path).exists()
