"use strict";

// What is unknown, Python's -inf, is no number here; it comes after the smallest.
const numberOf = (text) => (Number.isNaN(Number(text)) ? -Infinity : Number(text));

const valueOf = (cell) => (cell.dataset.value === undefined ? cell.textContent.trim() : numberOf(cell.dataset.value));

const compare = (a, b) =>
  typeof a === "number" && typeof b === "number" ? (a === b ? 0 : a - b) : String(a).localeCompare(String(b), "en", { numeric: true });

function sortBy(table, column) {
  const heading = table.tHead.rows[0].cells[column];
  const isFirstDown = table.tBodies[0].rows[0]?.cells[column].dataset.value !== undefined; // of numbers, the largest first
  const next = { none: isFirstDown ? "descending" : "ascending", ascending: "descending", descending: "ascending" };
  const direction = next[heading.getAttribute("aria-sort")];
  for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => sign * compare(valueOf(a.cells[column]), valueOf(b.cells[column])));
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    heading.querySelector("button").addEventListener("click", () => sortBy(table, heading.cellIndex));
  }
}

for (const clusters of document.querySelectorAll(".clusters")) {
  const choice = clusters.querySelector(".choice");
  const select = choice.querySelector("select");
  const articles = [...clusters.querySelectorAll(".cluster")];
  const show = () => {
    for (const audio of clusters.querySelectorAll("audio")) audio.pause();
    articles.forEach((article, place) => { article.hidden = place !== select.selectedIndex; });
  };
  for (const button of choice.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      select.selectedIndex = (select.selectedIndex + Number(button.dataset.step) + articles.length) % articles.length;
      show();
    });
  }
  select.addEventListener("change", show);
  choice.hidden = false;
  show();
}

// One clip at a time. Events of media do not bubble: they are caught on their way down.
document.addEventListener("play", (event) => {
  for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
}, true);

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
