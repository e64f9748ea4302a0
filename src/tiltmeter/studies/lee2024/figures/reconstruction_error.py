"""Supplementary Figure 3: how far SAE(x) is from x, and what that does to the prediction."""

from __future__ import annotations

from tiltmeter.reports.charts.chart import Axis, Chart, Panel, Points
from tiltmeter.reports.charts.styles import SAE_COLORS, Style, styles
from tiltmeter.reports.tables.format import three_digits
from tiltmeter.studies.lee2024.figures.wording import TITLE
from tiltmeter.studies.lee2024.numbering import figure
from tiltmeter.studies.results import Results, saes_by_kind
from tiltmeter.studies.sae_labels import l0_text, sae_facts
from tiltmeter.studies.study import PaperFigure


def _chart(results: Results) -> Chart:
    """KL of SAE(x) against its distance from x, a dot for each SAE, with its L0."""
    curves, table = results["reconstructions"], results.table("reconstructions")
    facts = sae_facts(results)
    marks = []
    style_of = styles([str(name) for name in curves.direction.values])
    for kind, saes in saes_by_kind(curves).items():
        names = [f"sae-error:{sae}" for sae in saes]
        rows = {name: table[table.readout == name].set_index("direction").loc[names] for name in ("kl", "length")}
        marks.append(
            Points(
                f"{kind} SAEs",
                rows["length"]["mean"].to_numpy(),
                rows["kl"]["mean"].to_numpy(),
                _style(kind, style_of[names[-1]]),
                rows["kl"].low.to_numpy(),
                rows["kl"].high.to_numpy(),
                tuple(saes),
                tuple(l0_text(facts[sae]) for sae in saes),
            )
        )
    panel = Panel("", Axis("mean ‖SAE(x) - x‖, L2"), Axis("KL(clean ‖ perturbed), nats"), tuple(marks))
    return Chart(((panel,),))


def _style(kind: str, style: Style) -> Style:
    color = SAE_COLORS.get(kind, style.color)
    return style._replace(color=color, face=color)


def _finding(results: Results) -> str:
    """Mean distance and mean KL of each SAE."""
    curves = results["reconstructions"]
    parts = []
    for kind, saes in saes_by_kind(curves).items():
        one = [curves.sel(direction=f"sae-error:{sae}").isel(step=0) for sae in saes]
        numbers = ((float(curve.length.mean()), float(curve.kl.mean())) for curve in one)
        parts.append(f"{kind} " + ", ".join(f"{three_digits(far)} and {three_digits(kl)}" for far, kl in numbers))
    return f"Mean distance and mean KL of SAE(x), sparsest SAE first: {'; '.join(parts)}."


FIGURE_S3 = PaperFigure(
    title=f"{TITLE}, {figure('S3')}: distance and KL of reconstructions",
    caption="Every SAE of the layer: mean KL(clean ‖ perturbed) with SAE(x) in the place of x, against the mean "
    "distance of SAE(x) from x; beside each, its L0. Whiskers: 95 % intervals of the KL over sequences.",
    claimed="End-to-end SAEs have a high reconstruction error with a low KL.",
    needs=("reconstructions",),
    chart=_chart,
    finding=_finding,
)
