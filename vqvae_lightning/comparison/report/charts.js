// Any logged measure of the runs that are shown, over steps or images seen.
const SPACE = {left: 58, right: 34, top: 12, bottom: 40};
const TIPS = 12;  // values in a tip
const SVG = panel.querySelector("svg").namespaceURI;  // its address would be the page's only one

function draw(parent, name, attributes, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  parent.append(element);
  return element;
}

const short = new Intl.NumberFormat("en", {maximumSignificantDigits: 5});

// --- axes

// Lowest and highest of many values, more than a call takes as arguments.
function extent(values) {
  return values.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
}

function linearAxis(values, start, end) {
  let [low, high] = extent(values);
  if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high), 1e-30)) {
    const half = Math.max(.5, 1e-6 * Math.abs(low));
    [low, high] = [low - half, high + half];
  }
  const rough = (high - low) / 5, magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find(m => m * magnitude >= rough * .999) * magnitude;
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  const ticks = Array.from({length: last - first + 1}, (_, i) => (first + i) * step);
  return {at: value => start + (value - low) / (high - low) * (end - start), ticks, start, end};
}

function logAxis(values, start, end) {
  const axis = linearAxis(values.map(Math.log10), start, end);
  const [low, high] = extent(values);
  const powers = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) powers.push(power);
  const steps = powers.length > 4 ? [1] : [1, 2, 5];
  const marks = powers.flatMap(power => steps.map(m => m * 10 ** power));
  const ticks = marks.filter(mark => mark >= low * .999 && mark <= high * 1.001);
  return {...axis, at: value => axis.at(Math.log10(value)), ticks: ticks.length ? ticks : [low]};
}

// --- one chart

class Chart {
  constructor(data, settings, name) {
    this.data = data;
    this.settings = settings;
    this.select = make("select", {"aria-label": "Measure"}, ...options(data.measures));
    this.select.value = name;
    this.name = make("code");
    this.remove = make("button", {type: "button", "aria-label": "Remove this chart"}, "×");
    this.box = make("div", {class: "plot"});
    this.element = make("figure", {class: "drawn"},
      make("div", {class: "bar"}, this.select, this.name, this.remove), this.box);
    this.select.addEventListener("change", () => this.render());
    this.box.addEventListener("pointermove", event => {
      const box = this.box.getBoundingClientRect();
      this.point(event.clientX - box.left, event.clientY - box.top, event);
    });
    this.box.addEventListener("pointerleave", () => this.leave());
    this.box.addEventListener("keydown", event => this.key(event));
    this.box.addEventListener("blur", () => this.leave(), true);
    new ResizeObserver(() => { if (this.box.clientWidth !== this.width) this.render(); }).observe(this.box);
  }

  get measure() { return this.data.measures.find(measure => measure.name === this.select.value); }

  // The lines of the runs that are shown, as {run, number, points: [[x, y, step], …]}.
  lines() {
    const perStep = run => this.settings.images() ? run.batch : 1;
    return Object.entries(this.measure.lines).filter(([number]) => !off.has(number))
      .map(([number, [steps, values]]) => {
        const run = this.data.runs[number], scale = perStep(run);
        const x = step => this.settings.images() ? (step + 1) * scale : step;
        return {run, number, points: steps.map((step, i) => [x(step), values[i], step])};
      });
  }

  render() {
    const {measure} = this, width = this.width = this.box.clientWidth;
    if (!width) return;
    const height = Math.round(Math.min(380, Math.max(230, width * .54)));
    const arrow = {higher: " ▲", lower: " ▼"}[measure.better] ?? "";
    this.name.textContent = measure.name + arrow;
    this.drawn = this.lines();
    const svg = this.svg = document.createElementNS(SVG, "svg");
    this.box.replaceChildren(svg);
    const count = this.drawn.length;
    for (const [key, value] of Object.entries({viewBox: `0 0 ${width} ${height}`, width, height,
      tabindex: 0, role: "img", "aria-label":
      `${measure.title}, ${measure.split.toLowerCase()}: ${count} runs. Arrow keys read its values.`}))
      svg.setAttribute(key, value);
    const points = this.drawn.flatMap(line => line.points);
    if (!points.length) {
      draw(svg, "text", {class: "tick", x: width / 2, y: height / 2, "text-anchor": "middle"},
        "No run that is shown has logged this.");
      return;
    }
    this.axes(points, width, height);
    this.drawn.forEach(line => this.line(line));
    this.ends();
    this.cursor = draw(svg, "g", {class: "cursor"});
  }

  axes(points, width, height) {
    const ys = points.map(point => point[1]);
    const kind = this.settings.log() && extent(ys)[0] > 0 ? logAxis : linearAxis;
    const xs = points.map(point => point[0]);
    this.x = linearAxis([0, ...xs], SPACE.left, width - SPACE.right);
    this.y = kind(ys, height - SPACE.bottom, SPACE.top);
    const {x, y, svg} = this;
    for (const tick of y.ticks) {
      draw(svg, "line", {class: "grid", x1: x.start, x2: x.end, y1: y.at(tick), y2: y.at(tick)});
      draw(svg, "text", {class: "tick", x: x.start - 8, y: y.at(tick) + 4, "text-anchor": "end"},
        short.format(tick));
    }
    draw(svg, "line", {class: "axis", x1: x.start, x2: x.end, y1: y.start, y2: y.start});
    for (const tick of width < 420 ? x.ticks.filter((_, i) => i % 2 === 0) : x.ticks)
      draw(svg, "text", {class: "tick", x: x.at(tick), y: y.start + 18, "text-anchor": "middle"},
        short.format(tick));
    draw(svg, "text", {class: "tick", x: x.end, y: height - 3, "text-anchor": "end"},
      this.settings.images() ? "images seen" : "step");
  }

  line({run, number, points}) {
    const group = draw(this.svg, "g", {class: `kind-${run.kind} dash${run.dash}`, "data-line": number});
    const path = points.map(([x, y]) => `${this.x.at(x).toFixed(1)},${this.y.at(y).toFixed(1)}`);
    draw(group, "polyline", {class: "line", points: path.join(" ")});
    if (points.length === 1) {
      const [cx, cy] = path[0].split(",");
      draw(group, "circle", {class: "dot", cx, cy, r: 3});
    }
  }

  // The numbers of runs at the ends of their lines, moved apart where they would overlap.
  ends() {
    if (this.drawn.length > 24) return;
    const ends = this.drawn.map(({number, points}) => {
      const [x, y] = points[points.length - 1];
      return {number, x: this.x.at(x) + 6, y: this.y.at(y) + 4};
    }).sort((one, other) => one.y - other.y);
    const beside = (end, others) => others.filter(other => Math.abs(other.x - end.x) < 20);
    ends.forEach((end, i) => {
      end.y = Math.max(end.y, ...beside(end, ends.slice(0, i)).map(other => other.y + 13));
    });
    [...ends].reverse().forEach((end, i, reversed) => {
      const below = beside(end, reversed.slice(0, i)).map(other => other.y - 13);
      end.y = Math.min(end.y, this.y.start, ...below);
      draw(this.svg, "text", {class: "label", x: end.x, y: end.y}, end.number);
    });
  }

  // The values at the x nearest to a pixel; `y` chooses the line that stands out.
  point(px, py, at) {
    if (!this.drawn?.length) return;
    const near = this.drawn.map(line => {
      const point = line.points.reduce((a, b) =>
        Math.abs(this.x.at(b[0]) - px) < Math.abs(this.x.at(a[0]) - px) ? b : a);
      return {line, point, dx: Math.abs(this.x.at(point[0]) - px), y: this.y.at(point[1])};
    });
    const closest = Math.min(...near.map(found => found.dx));
    const here = near.filter(found => found.dx <= closest + 12);
    const first = here.reduce((a, b) => Math.abs(b.y - py) < Math.abs(a.y - py) ? b : a);
    this.mark(here, first);
    const listed = here.sort((a, b) => Math.abs(a.y - py) - Math.abs(b.y - py)).slice(0, TIPS);
    listed.sort((a, b) => a.y - b.y);
    const rest = here.length - listed.length;
    const box = this.svg.getBoundingClientRect();
    showTip(at?.clientX ?? box.left + px, at?.clientY ?? box.top + py,
      ...listed.map(found => row(found, found === first, this.settings.images())),
      ...(rest ? [make("div", {class: "soft"}, `and ${rest} more`)] : []));
  }

  mark(here, first) {
    this.cursor.replaceChildren();
    const x = this.x.at(first.point[0]);
    draw(this.cursor, "line", {class: "axis", x1: x, x2: x, y1: this.y.start, y2: this.y.end});
    for (const {line, point, y} of here)
      draw(this.cursor, "circle", {class: `dot kind-${line.run.kind}`, cx: this.x.at(point[0]), cy: y, r: 3.5});
    this.svg.classList.add("pointed");
    for (const group of this.svg.querySelectorAll("[data-line]"))
      group.classList.toggle("near", group.dataset.line === first.line.number);
  }

  leave() {
    this.cursor?.replaceChildren();
    this.svg?.classList.remove("pointed");
    this.place = undefined;
    hideTip();
  }

  // Arrow keys go from one logged step to the next.
  key(event) {
    if (event.key === "Escape") return this.leave();
    const xs = [...new Set(this.drawn.flatMap(line => line.points.map(point => point[0])))];
    xs.sort((a, b) => a - b);
    const last = xs.length - 1, now = this.place ?? (event.key === "ArrowLeft" ? last + 1 : -1);
    const to = {ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last}[event.key];
    if (to === undefined || !xs.length) return;
    event.preventDefault();
    this.place = Math.max(0, Math.min(last, to));
    this.point(this.x.at(xs[this.place]), this.y.start / 2);
  }
}

function options(measures) {
  const groups = new Map();
  for (const {name, title, split} of measures) {
    if (!groups.has(split)) groups.set(split, make("optgroup", {label: split}));
    groups.get(split).append(make("option", {value: name}, title));
  }
  return groups.values();
}

function row({line, point}, isFirst, images) {
  const at = images ? `${short.format(point[0])} images` : `step ${point[2].toLocaleString("en")}`;
  return make("div", {class: isFirst ? "first" : ""},
    make("span", {class: `key kind-${line.run.kind}`}, line.number), " ",
    make("span", {class: "name"}, line.run.name), " ",
    make("b", {}, short.format(point[1])), " ", make("span", {class: "soft"}, at));
}

// --- the charts of a section, which share an x axis and a scale

function startCharts(section, data) {
  const place = section.querySelector(".charts");
  if (!place || !data.measures.length) return;
  const bar = section.querySelector(".chart-settings"), charts = [];
  const control = name => bar.querySelector(`[name=${name}]`);
  const settings = {images: () => control("x").value === "images", log: () => control("log").checked};
  const add = name => {
    const chart = new Chart(data, settings, name);
    charts.push(chart);
    place.append(chart.element);
    chart.render();
    chart.remove.addEventListener("click", () => {
      charts.splice(charts.indexOf(chart), 1);
      chart.element.remove();
    });
    return chart;
  };
  place.replaceChildren();
  data.first.forEach(add);
  const renderAll = () => charts.forEach(chart => chart.render());
  control("x").addEventListener("change", renderAll);
  control("log").addEventListener("change", renderAll);
  control("add").addEventListener("click", () => {
    const seen = new Set(charts.map(chart => chart.select.value));
    const next = data.measures.find(measure => !seen.has(measure.name)) ?? data.measures[0];
    add(next.name).select.focus();
  });
  onChange.push(renderAll);
}

// --- start

page.classList.add("js");
document.body.append(tip);
startTips();
startPictures();
startRuns();
document.querySelectorAll("table.sortable").forEach(startTable);
const sections = JSON.parse(document.getElementById("data").textContent);
document.querySelectorAll("section[data-number]").forEach(section =>
  startCharts(section, sections[section.dataset.number]));
