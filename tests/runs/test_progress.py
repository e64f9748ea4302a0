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
