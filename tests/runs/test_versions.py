import pytest

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.versions import Versioned, refuse_unversioned, versioned


def test_a_function_is_identified_by_its_version_alone():
    assert versioned(len, "1").identity == versioned(max, "1").identity != versioned(len, "2").identity
    assert versioned(len, "1").identity != Versioned(len).identity


def test_only_functions_with_a_version_are_stored():
    refuse_unversioned("direction", {"mine": versioned(len, "1")})
    with pytest.raises(TiltmeterError, match=r"The readout mine is a function.*tm.versioned\(f, .1.\)"):
        refuse_unversioned("readout", {"mine": Versioned(len)})


@pytest.mark.parametrize(("given", "version"), [(3, "1"), (len, 1), (len, " ")])
def test_what_is_no_function_or_no_version_is_refused(given, version):
    with pytest.raises(TiltmeterError, match="expected a"):
        versioned(given, version)
