"""Progress bars: how often they are updated, by where they are shown."""

import sys
from types import ModuleType

from tiltmeter.runs import progress


class Terminal:
    def isatty(self):
        return True


def test_bars_are_updated_often_where_someone_looks(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert progress._interval() < 1
    monkeypatch.setattr(Terminal, "isatty", lambda self: False)
    assert progress._interval() >= 10, "logs would be long"
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", ModuleType("zmqshell"))
    assert progress._interval() < 1


def test_the_time_left_is_by_the_mean_speed_of_the_steps_taken_here():
    with progress.counted_steps(100, "points") as steps:
        steps.skip(50)
        steps.take(25)
        known = steps._bar.format_dict
        assert (known["n"], known["initial"], known["total"], known["rate"]) == (75, 50, 100, None)
        shown = steps._bar.format_meter(**known | {"elapsed": 5.0})
    assert "75.0/100" in shown and "00:05<00:05" in shown  # 25 in 5 s, and 25 are left
