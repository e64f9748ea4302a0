// Shows the claims of one verdict alone. Without this script all are shown, and there is no choice.
"use strict";
const choice = document.querySelector(".filter");
const rows = [...document.querySelectorAll("tbody[data-verdict]")];
const show = (verdict) => {
  for (const row of rows) row.hidden = verdict !== "" && row.dataset.verdict !== verdict;
  for (const group of document.querySelectorAll(".topic")) {
    group.hidden = [...group.querySelectorAll("tbody[data-verdict]")].every((row) => row.hidden);
  }
  for (const button of choice.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.value === verdict));
  }
};
choice.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) show(button.value);
});
// A link to a claim that is not shown, as those of the summary are, shows all.
const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.closest("[hidden]")) {
    show("");
    target.scrollIntoView();
  }
};
window.addEventListener("hashchange", reveal);
choice.hidden = false;
