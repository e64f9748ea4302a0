"""Processes for tests of kills and interrupts: forks, in which everything that takes seconds to import is there."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path


class Forked:
    """A fork of this process that runs a function, like a `subprocess.Popen` with text pipes."""

    def __init__(self, function, *arguments):
        self.returncode = None
        with tempfile.TemporaryDirectory() as self._folder:  # its files live on while they are open
            self._files = [Path(self._folder, name).open("w+") for name in ("out", "err")]  # noqa: SIM115
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._become(function, arguments)

    def _become(self, function, arguments):
        """Run in the child, and never come back to what the parent was doing."""
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
            for number, file in enumerate(self._files, start=1):
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
            function(*arguments)
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wait()
        for file in self._files:
            file.close()

    def printed(self):
        """The lines on stdout so far."""
        return self._read(0).split("\n")[:-1]

    def poll(self):
        """The status, or None while it runs; negative for a signal."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self):
        """The status, once it has ended."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def communicate(self):
        """Wait, and return what it printed."""
        self.wait()
        return self._read(0), self._read(1)

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def _read(self, which):
        self._files[which].flush()
        return os.pread(self._files[which].fileno(), 1 << 24, 0).decode()


def forget_imports(*names):
    """In a fork: let these modules and what is in them be imported anew, and unchecked.

    The libraries that they import are still there, which take ten times as long.
    """
    for module in [module for module in sys.modules if f"{module}.".startswith(tuple(f"{name}." for name in names))]:
        del sys.modules[module]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("jaxtyping")]


def until(condition, seconds=300, every=0.005):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(every)
