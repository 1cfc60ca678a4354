"use strict";

const { columns, marks: earlier } = JSON.parse(document.querySelector("#earlier").textContent);
const figures = [...document.querySelectorAll(".hits .clip")];
const nameOf = (mark) => JSON.stringify([mark.source, mark.key, Number(mark.start_seconds)]);

const markOf = (figure) => ({
  source: figure.dataset.source,
  key: figure.dataset.key,
  start_seconds: figure.dataset.start,
  end_seconds: figure.dataset.end,
  mark: figure.querySelector("input:checked")?.value ?? "",
});

// A clip may be in both lists: its boxes are set together.
function allMarks() {
  const found = new Map(earlier.map((mark) => [nameOf(mark), mark]));
  for (const mark of figures.map(markOf)) if (mark.mark) found.set(nameOf(mark), mark);
  return [...found.values()];
}

const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

const toCsv = () => [columns, ...allMarks().map((mark) => columns.map((name) => mark[name]))]
  .map((row) => `${row.map(cell).join(",")}\n`).join("");

function show() {
  const count = (value) => allMarks().filter(({ mark }) => mark === value).length;
  document.querySelector("#count").textContent = `${count("keep")} kept, ${count("reject")} rejected`;
}

document.addEventListener("change", ({ target }) => {
  if (!target.matches(".marks input")) return;
  const name = nameOf(markOf(target.closest(".clip")));
  for (const figure of figures.filter((each) => nameOf(markOf(each)) === name)) {
    for (const box of figure.querySelectorAll("input")) box.checked = box.value === target.value && target.checked;
    figure.dataset.mark = markOf(figure).mark;
  }
  show();
});

document.querySelector("#save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([toCsv()], { type: "text/csv" }));
  link.download = "marks.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

// One clip at a time. Events of media do not bubble: they are caught on their way down.
document.addEventListener("play", (event) => {
  for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
}, true);

show();
