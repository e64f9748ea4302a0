"""A page in a headless Chromium: what it says on its console, and what a script finds in it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="pages are looked at in a browser, and no chromium or google-chrome is installed"
)

_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",  # for the frame around the page, which asks it
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
)
_FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" src="{page}" style="border:0;width:{width}px;height:12000px"></iframe><pre id="found"></pre>
<script>
const frame = document.getElementById("page");
const wait = (time) => new Promise((done) => setTimeout(done, time));
const click = (node) => ["mousedown", "mouseup", "click"].forEach(
  (type) => node.dispatchEvent(new MouseEvent(type, {{bubbles: true, view: frame.contentWindow}})));
frame.onload = async () => {{
  let found;
  try {{
    await wait(3000);
    found = await (async (window, document) => {{ {script} }})(frame.contentWindow, frame.contentDocument);
  }} catch (error) {{ found = {{error: String(error)}}; }}
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>"""


class Visit(NamedTuple):
    """What came of opening a page."""

    found: Any
    """What the script returned."""
    console: list[str]
    """What the page, or the browser about it, wrote on the console."""


def visit(page: Path, script: str, width: int = 1000) -> Visit:
    """Open a page from the disk, in a window of this width, and run a script in it with `window` and `document`."""
    frame = page.with_name("frame.html")
    frame.write_text(_FRAME.format(page=page.name, width=width, script=script), "utf-8")
    profile = f"--user-data-dir={page.with_name('profile')}"
    command = [str(BROWSER), *_QUIET, profile, f"--window-size={width},12000", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    said = re.findall(r"CONSOLE:?\d*[)\]] (.*)", done.stderr.decode("utf-8", "replace"))
    answer = re.search(r'<pre id="found">(.*?)</pre>', done.stdout.decode("utf-8"), re.DOTALL)
    assert answer and answer[1], f"the page gave no answer: {done.stderr[-2000:]!r}"
    return Visit(json.loads(html.unescape(answer[1])), said)
