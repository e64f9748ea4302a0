"""Run the README's Python example with the installed tiltmeter: `python scripts/readme_example.py README.md`."""

import re
import sys
from pathlib import Path

import tiltmeter

(code,) = re.findall(r"```python\n(.*?)```", Path(sys.argv[1]).read_text("utf-8"), flags=re.DOTALL)
exec(code, {})
print("tiltmeter", tiltmeter.__version__, "of", Path(tiltmeter.__file__).parent)
