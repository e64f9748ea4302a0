// Each figure's JSON becomes a plot in front of its picture, which stays where a plot cannot be drawn, and on paper.
// plotly's button that sends a figure to its makers' site is taken away.
"use strict";
for (const source of document.querySelectorAll("script.chart")) {
  const paper = source.parentElement;
  const plot = paper.querySelector(".plot");
  const settings = {
    responsive: true, displaylogo: false, typesetMath: false, showSendToCloud: false, plotlyServerURL: "",
    displayModeBar: paper.clientWidth < 500 ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "sendDataToCloud"],
    toImageButtonOptions: { filename: source.dataset.name },
  };
  const draw = () => {
    const figure = JSON.parse(source.textContent);
    return Plotly.newPlot(plot, figure.data, figure.layout, settings);
  };
  new Promise((done) => { paper.classList.add("drawn"); done(draw()); }).catch((error) => {
    paper.classList.remove("drawn");
    plot.remove();
    console.warn(`${source.dataset.name} is shown as a picture: ${error}`);
  });
}
