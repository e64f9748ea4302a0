"""Write docs/gallery.md, with small pictures in docs/gallery/, from finished runs of studies.

for study in lee2024 heimersheim2024 gurnee2024 giglemiani2024; do
    tiltmeter reproduce $study --quick --control none --out runs/gallery/$study
done
python scripts/gallery.py runs/gallery
"""

import argparse
from pathlib import Path

from PIL import Image

from tiltmeter.studies import STUDIES
from tiltmeter.studies.study import Study

ROOT = Path(__file__).parents[1]
WIDTH, QUALITY = 760, 60
"""What keeps a picture at about 20 kB."""

HEAD = """# Gallery

Every figure that `tiltmeter reproduce STUDY --quick` draws of nano, with the command that draws it alone. First looks:
a dozen sequences, no control. What each claims, and what a run of the default size finds, is in a run's report
([studies](studies.md)). Figures of Lee & Heimersheim have the numbers of
LessWrong ([those of arXiv](studies.md)).

`python scripts/gallery.py RUNS` wrote this page from finished runs.
"""


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="a folder with a run of each study, named as the study")
    runs = parser.parse_args().runs
    parts = [section(study, runs / study.name) for study in STUDIES.values() if (runs / study.name).is_dir()]
    (ROOT / "docs" / "gallery.md").write_text("\n".join([HEAD, *parts]), "utf-8")


def section(study: Study, run: Path) -> str:
    """The figures of one study."""
    lines = [f"## {study.name}", ""]
    for number, figure in study.figures.items():
        drawn = run / "figures" / f"figure-{number}.png"
        if drawn.is_file():
            small = ROOT / "docs" / "gallery" / f"{study.name}-{number}.webp"
            shrink(drawn, small)
            title = figure.title.rpartition(": ")[2]
            lines += [f"### {study.name}, {number}: {title}", "", f"![{title}](gallery/{small.name})", ""]
            lines += [figure.caption, "", "```"]
            lines += [f"tiltmeter reproduce {study.name} --figure {number} --quick --control none", "```", ""]
    return "\n".join(lines)


def shrink(drawn: Path, small: Path) -> None:
    """Store a picture with fewer pixels, as WebP."""
    small.parent.mkdir(exist_ok=True)
    picture = Image.open(drawn).convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture.save(small, quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
