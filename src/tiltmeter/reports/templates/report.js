// Draws each figure's JSON in place of its picture, from the top of the page down. The picture stays if plotly fails, and
// in print. plotly's button that uploads a figure is removed.
"use strict";
const settings = (name, width) => ({
  responsive: true, displaylogo: false, typesetMath: false, showSendToCloud: false, plotlyServerURL: "",
  displayModeBar: width < 500 ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "sendDataToCloud"],
  toImageButtonOptions: { filename: name },
});
const draw = async (paper) => {
  const source = paper.querySelector("script.chart");
  const plot = paper.querySelector(".plot");
  const name = source.dataset.name;
  try {
    const figure = JSON.parse(source.textContent);
    paper.classList.add("drawn");
    await Plotly.newPlot(plot, figure.data, figure.layout, settings(name, paper.clientWidth));
  } catch (error) {
    paper.classList.remove("drawn");
    plot.remove();
    console.warn(`${name} is shown as a picture: ${error}`);
  }
};
const drawAll = async () => {
  for (const paper of document.querySelectorAll(".paper")) {
    await draw(paper);
    await new Promise((done) => setTimeout(done)); // lets the browser scroll a long page meanwhile
  }
};
drawAll();
