"""The report in a browser: it opens from the disk, asks nothing of anyone, and its figures can be looked into."""

import pytest

from browser import needs_browser, visit
from chart_cases import CHARTS, EVIL, OWN, PAPER, measured
from tiltmeter.reports.charts.curves import facets
from tiltmeter.reports.page import ReportFigure, write_report

pytestmark = needs_browser

NAMES = [*PAPER, EVIL, OWN[2]]
MANIFEST = {"identity": {}, "record": {}}
STATE = """
  const plots = [...document.querySelectorAll(".js-plotly-plot")];
  const shown = (plot) => plot.querySelectorAll(".scatterlayer .trace").length;
  const named = (plot, name) => [...plot.querySelectorAll(".legend .traces")].find(
    (node) => node.querySelector(".legendtext").textContent === name);
"""


def report(folder, charts):
    exhibits = [
        ReportFigure(f"chart-{n}", f"{name} {EVIL}", EVIL, EVIL, EVIL, chart)
        for n, (name, chart) in enumerate(charts.items())
    ]
    return write_report(folder, f"A page of {EVIL}", [EVIL], exhibits, MANIFEST, notes=[EVIL])


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    chart = facets(*measured(NAMES), ["kl"], {"all": NAMES, "two": [EVIL, "isotropic"]})
    return report(tmp_path_factory.mktemp("page"), {"curves": chart})


@pytest.fixture(scope="module")
def every_mark(tmp_path_factory):
    return report(tmp_path_factory.mktemp("marks"), CHARTS)


def test_it_opens_without_a_word_or_a_request(curves):
    seen = visit(
        curves,
        STATE
        + """
        return {
          plots: plots.length, svg: plots[0].querySelectorAll("svg.main-svg").length, traces: shown(plots[0]),
          drawn: document.querySelectorAll(".paper.drawn").length,
          picture: getComputedStyle(document.querySelector(".paper img")).display,
          requests: window.performance.getEntriesByType("resource").map((entry) => entry.name),
          wide: document.documentElement.scrollWidth,
        };""",
    )
    assert seen.console == []
    assert seen.found.pop("svg") >= 1
    # a band and a line of each name in each panel
    assert seen.found == {
        "plots": 1,
        "traces": 2 * (len(NAMES) + 2),
        "drawn": 1,
        "picture": "none",
        "requests": [],
        "wide": 1000,
    }


def test_every_mark_is_drawn(every_mark):
    seen = visit(
        every_mark,
        STATE
        + """
        const parts = [
          ".scatterlayer .js-line", ".scatterlayer .point", ".barlayer .point", ".heatmaplayer image",
          ".gl-container canvas", ".ternarylayer .point", ".shapelayer path", ".errorbar", ".colorbar"];
        return {
          plots: plots.length,
          drawn: document.querySelectorAll(".paper.drawn").length,
          missing: parts.filter((part) => !document.querySelector(part)),
          requests: window.performance.getEntriesByType("resource")
            .map((entry) => entry.name).filter((name) => !/^(data|blob):/.test(name)),
          scripts: document.querySelectorAll("script:not([type])").length,
          handlers: document.querySelectorAll("[onclick]").length,
        };""",
    )
    bad = ("Uncaught", "Content Security Policy", "rror:", "is shown as a picture")
    assert not [said for said in seen.console if any(word in said for word in bad)]
    assert seen.found == {
        "plots": len(CHARTS),
        "drawn": len(CHARTS),
        "missing": [],
        "requests": [],
        "scripts": 2,
        "handlers": 0,
    }


def test_a_name_in_the_legend_switches_its_line_and_band_in_all_panels(curves):
    seen = visit(
        curves,
        STATE
        + """
        const counts = [shown(plots[0])];
        const name = "isotropic";
        for (let turn = 0; turn < 2; turn++) {
          click(named(plots[0], name).querySelector(".legendtoggle"));
          await wait(1500);
          counts.push(shown(plots[0]));
        }
        return {counts, entries: [...plots[0].querySelectorAll(".legendtext")].map((node) => node.textContent)};""",
    )
    whole = 2 * (len(NAMES) + 2)
    assert seen.found["counts"] == [whole, whole - 4, whole]
    entries = seen.found["entries"]
    assert len(entries) == len(NAMES)
    assert set(PAPER) | {OWN[2]} <= set(entries)
    assert seen.console == []


def test_buttons_switch_to_logarithmic_axes_and_back(curves):
    seen = visit(
        curves,
        STATE
        + """
        const types = [];
        for (const word of ["y log", "x log", "y linear"]) {
          click([...plots[0].querySelectorAll(".updatemenu-button")].find((node) => node.textContent === word));
          await wait(1000);
          const layout = plots[0]._fullLayout;
          types.push([layout.xaxis.type, layout.yaxis.type, layout.xaxis2.type, layout.yaxis2.type].join(" "));
        }
        return types;""",
    )
    assert seen.found == ["linear log linear log", "log log log log", "log linear log linear"]
    assert seen.console == []


def test_pointing_at_a_line_shows_its_name_as_it_is_and_its_numbers(curves):
    seen = visit(
        curves,
        STATE
        + """
        const plot = plots[0], found = {};
        for (const [number, trace] of plot._fullData.entries()) {
          if (trace.mode !== "lines+markers" || trace.xaxis !== "x") continue;
          window.Plotly.Fx.hover(plot, [{curveNumber: number, pointNumber: 1}]);
          await wait(100);
          const words = plot.querySelector(".hovertext");
          found[trace.legendgroup] = [words.textContent, words.querySelectorAll("a").length];
        }
        return found;""",
    )
    assert seen.found.keys() == set(NAMES)
    _, table = measured(NAMES)
    for name in NAMES:
        words, links = seen.found[name]
        (row,) = table[(table.direction == name) & (table.step == 1.0) & (table.readout == "kl")].itertuples()
        assert words.startswith(" ".join(name.split()))
        assert f"KL(clean ‖ perturbed), nats: {row.mean:.4g} [{row.low:.3g}, {row.high:.3g}]" in words
        assert links == 0


def test_nothing_can_be_sent_to_plotly_s_makers(every_mark):
    seen = visit(
        every_mark, 'return [...document.querySelectorAll(".modebar-btn")].map((button) => button.dataset.title || "");'
    )
    assert seen.found
    assert not [
        title for title in seen.found if any(word in title.lower() for word in ("cloud", "chart studio", "share"))
    ]


def test_a_phone_shows_cards_and_scrolls_figures_in_their_boxes(curves):
    seen = visit(
        curves,
        STATE
        + """
        const box = document.querySelector(".paper");
        return {wide: document.documentElement.scrollWidth, box: box.clientWidth < 390, inside: box.scrollWidth >= 600,
                tools: document.querySelectorAll(".modebar-btn").length};""",
        width=390,
    )
    assert seen.found == {"wide": 390, "box": True, "inside": True, "tools": 0}


def test_a_figure_that_cannot_be_plotted_stays_a_picture(curves, tmp_path):
    text = curves.read_text("utf-8")
    begin = text.index('class="chart"')
    at = text.index(">", begin) + 1
    page = tmp_path / "report.html"
    page.write_text(f"{text[:at]}[{text[at:]}", "utf-8")
    seen = visit(
        page,
        'return [document.querySelectorAll(".drawn").length, document.querySelector(".paper img").naturalWidth > 100];',
    )
    assert seen.found == [0, True]
    assert any("is shown as a picture" in said for said in seen.console)


@pytest.mark.parametrize(
    "smuggled",
    [
        "<script>document.title = 'run'</script>",
        "<img src='https://127.0.0.1:9/x.png'>",
        "<p onclick='1'>x</p><img src='data:,' onerror=\"document.title = 'run'\">",
    ],
)
def test_the_policy_refuses_what_is_not_the_page_s_own(curves, tmp_path, smuggled):
    page = tmp_path / "report.html"
    page.write_text(curves.read_text("utf-8").replace("<main>", f"{smuggled}<main>"), "utf-8")
    seen = visit(page, "return document.title;")
    assert seen.found != "run"
    assert any("Content Security Policy" in said for said in seen.console)


def test_a_page_without_figures_needs_no_script(tmp_path):
    exhibit = ReportFigure("none", "Figure 1", "", "", "Not drawn: no SAE is known at this site.", None)
    page = write_report(tmp_path, "Nothing", [], [exhibit], MANIFEST)
    assert "<script" not in page.read_text("utf-8")
    seen = visit(page, 'return document.querySelector(".finding").textContent;')
    assert seen == ("Not drawn: no SAE is known at this site.", [])
