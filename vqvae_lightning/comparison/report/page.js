// Runs on and off, tables, values under the pointer, and pictures enlarged. Without this script the
// page is whole: it only gains what a reader does to it.
"use strict";
const page = document.documentElement;
const off = new Set();  // numbers of the runs that are switched off, as text
const onChange = [];  // called after runs were switched, with no arguments

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// --- runs

const panel = document.querySelector(".runs");
const boxes = [...panel.querySelectorAll("input[data-toggle]")];

function showRuns() {
  boxes.forEach(box => box.checked ? off.delete(box.dataset.toggle) : off.add(box.dataset.toggle));
  for (const element of document.querySelectorAll("[data-run]"))
    element.toggleAttribute("hidden", off.has(element.dataset.run));
  countRuns();
  document.querySelectorAll("section[data-number]").forEach(markBudgets);
  document.querySelectorAll("table.sortable").forEach(markBest);
  onChange.forEach(call => call());
}

function countRuns() {
  panel.querySelector("output").textContent = `${boxes.length - off.size} of ${boxes.length} shown`;
}

function startRuns() {
  const filter = panel.querySelector("input[type=search]");
  const listed = box => !box.closest("li").hidden;
  const set = checked => {
    boxes.filter(listed).forEach(box => { box.checked = checked; });
    showRuns();
  };
  panel.addEventListener("change", event => { if (event.target.dataset.toggle) showRuns(); });
  panel.querySelector("[data-all]").addEventListener("click", () => set(true));
  panel.querySelector("[data-none]").addEventListener("click", () => set(false));
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const item of panel.querySelectorAll("li")) {
      const text = item.textContent.toLowerCase();
      item.hidden = !words.every(word => text.includes(word));
    }
  });
  countRuns();
  filter.hidden = boxes.length < 9;
  if (matchMedia("(max-width: 40rem)").matches || (boxes.length > 12 && !isWide()))
    panel.querySelector("details").open = false;
}

const isWide = () => matchMedia("(min-width: 96rem)").matches;

// The notice stands as long as budgets among the runs that are shown differ.
function markBudgets(section) {
  const notice = section.querySelector(".unequal");
  const rows = [...section.querySelectorAll("tr[data-budget]:not([hidden])")];
  if (notice) notice.hidden = new Set(rows.map(row => row.dataset.budget)).size < 2 && alike(rows);
}

function alike(rows) {
  const sizes = rows.map(row => Number(row.dataset.parameters));
  return Math.max(...sizes) <= Number(document.body.dataset.alike) * Math.min(...sizes);
}

// The rule of columns.py: a best value only among rows that can be ranked together.
function markBest(table) {
  const rows = [...table.tBodies[0].rows];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.dataset.better) return;
    rows.forEach(row => row.cells[column].classList.remove("best"));
    const known = rows.filter(row => !row.hidden && row.cells[column].dataset.peers)
      .filter(row => Number.isFinite(Number(row.cells[column].dataset.value)));
    const peers = new Set(known.map(row => row.cells[column].dataset.peers));
    if (known.length < 2 || peers.size > 1 || !alike(known)) return;
    const sign = head.dataset.better === "higher" ? 1 : -1;
    const rank = row => sign * Number(row.cells[column].dataset.value);
    const best = known.reduce((one, other) => rank(other) > rank(one) ? other : one);
    const text = row => row.cells[column].textContent;
    known.filter(row => text(row) === text(best))
      .forEach(row => row.cells[column].classList.add("best"));
  });
}

// --- tables: a click on a header sorts, a second click turns the order round

function startTable(table) {
  const headers = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const texts = [...body.rows].map(row => value(row.cells[column])).filter(text => text !== null);
      const numeric = texts.every(text => text === "nan" || !isNaN(text));
      const before = header.getAttribute("aria-sort");
      const down = before === "none" ? numeric : before === "ascending";
      headers.forEach(other => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...[...body.rows].sort((one, two) =>
        compared(value(one.cells[column]), value(two.cells[column]), numeric, down)));
    });
  });
}

function compared(a, b, numeric, down) {
  const last = text => text === null || text === "nan";  // in either order
  if (last(a) || last(b)) return last(a) - last(b);
  return (numeric ? a - b : a.localeCompare(b, undefined, {numeric: true})) * (down ? -1 : 1);
}

function value(cell) {
  if (cell.classList.contains("none")) return null;
  return cell.dataset.value ?? cell.textContent.trim();
}

// --- values under the pointer

const tip = make("div", {class: "tip", role: "status", hidden: ""});

function showTip(x, y, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const {width, height} = tip.getBoundingClientRect();
  const left = x + 16 + width < innerWidth ? x + 16 : Math.max(4, x - 16 - width);
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(4, Math.min(y - height / 2, innerHeight - height - 4))}px`;
}

function hideTip() { tip.hidden = true; }

// A browser's own tooltip of a <title> comes late, and never on a touch.
function startTips() {
  for (const title of document.querySelectorAll("svg title")) {
    const mark = title.parentElement;
    mark.dataset.tip = title.textContent;
    title.remove();
    mark.addEventListener("pointermove", e => showTip(e.clientX, e.clientY, mark.dataset.tip));
    mark.addEventListener("pointerleave", hideTip);
  }
}

// --- pictures

function startPictures() {
  const shown = make("div", {class: "shown"}), caption = make("p");
  const button = (label, text) => make("button", {type: "button", "aria-label": label}, text);
  const back = button("Previous picture", "←"), next = button("Next picture", "→");
  const close = button("Close", "×");
  const dialog = make("dialog", {"aria-label": "Picture"}, shown,
    make("div", {class: "bar"}, caption, back, next, close));
  document.body.append(dialog);
  const figures = [...document.querySelectorAll("figure.picture")];
  let at = 0;
  const show = index => {
    at = index;
    const copy = figures[at].querySelector(".labelled").cloneNode(true);
    const image = figures[at].querySelector("img").cloneNode(true);
    copy.querySelector(".enlarge").replaceWith(image);
    shown.replaceChildren(copy);
    caption.replaceChildren(...figures[at].querySelector("figcaption").cloneNode(true).childNodes);
    enlarge(image, copy.querySelector(".rows"));
  };
  const step = by => {
    const visible = figures.filter(figure => !figure.hidden);
    const place = visible.indexOf(figures[at]) + by;
    show(figures.indexOf(visible[(place + visible.length) % visible.length]));
  };
  figures.forEach((figure, index) => {
    const image = figure.querySelector("img");
    const opener = make("button", {type: "button", class: "enlarge", title: "Enlarge"});
    image.replaceWith(opener);
    opener.append(image);
    opener.addEventListener("click", () => { dialog.showModal(); show(index); });
  });
  back.addEventListener("click", () => step(-1));
  next.addEventListener("click", () => step(1));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => {
    if (event.target === dialog || event.target.tagName === "IMG") dialog.close();
  });
  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}

// As large as fits; pixels stay squares, of a whole number of the screen's where there is room.
function enlarge(image, labels) {
  const beside = labels ? 110 : 0;
  const [width, height] = [image.getAttribute("width"), image.getAttribute("height")].map(Number);
  const fit = Math.min((innerWidth * .94 - beside) / width, (innerHeight * .94 - 70) / height);
  image.width = Math.round(width * (fit > 1 ? Math.floor(fit * 2) / 2 : fit));
  image.height = Math.round(image.width * height / width);
}
