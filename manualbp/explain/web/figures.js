// What is no panel: the legend, the curve of an activation, the bars of a softmax, the wrong gradient beside the right one.

import { drawGrid } from "./grid.js";
import { el, number, symbol } from "./text.js";

export function drawLegend(page, symbols) {
  const grids = Object.values(page.grids), steps = page.panels.flatMap((panel) => panel.steps);
  const roles = ["input", "kernel", "bias", "output", "delta", "gradient"];
  const drawn = roles.filter((role) => grids.some((grid) => grid.role === role));
  const marks = [["lit", "in the sum"], ["now", "its result"], ["echo", "the same cells in other panels"]];
  if (page.panels.some((panel) => panel.over)) marks.unshift(["window", "window"]);
  if (steps.some((step) => step.chosen)) marks.push(["chosen", "the switch"]);
  if (grids.some((grid) => grid.at?.includes(-1))) marks.push(["zero", "put there: padding or gap"]);
  return el("div", { className: "legend" },
    el("ul", { className: "roles", ariaLabel: "Colours of the tensors" },
      drawn.map((role) => el("li", { className: role }, role))),
    el("ul", { className: "marks", ariaLabel: "Marks of cells" },
      marks.map(([mark, words]) => el("li", {}, el("span", { className: `sample ${mark}` }), words))),
    symbols ? [] : el("p", { className: "scale" }, "−m ", el("span", { className: "ramp" }), " +m",
      el("small", {}, "m, the largest size in a grid, stands beside its name")));
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The height of the drawn curve above a place: between two of its points it is a straight line. */
function height({ x, y }, place) {
  const right = x.findIndex((value) => value >= place);
  if (right <= 0) return right ? y.at(-1) : y[0];
  const share = (place - x[right - 1]) / (x[right] - x[right - 1]);
  return y[right - 1] + share * (y[right] - y[right - 1]);
}

export function drawCurve({ page }) {
  const { curve } = page, points = page.grids[curve.points];
  const [W, H, M] = [440, 220, 28];
  const low = Math.min(0, ...curve.y), high = Math.max(...curve.y);
  const [first, last] = [curve.x[0], curve.x.at(-1)];
  const px = (x) => M + ((x - first) / (last - first)) * (W - 2 * M);
  const py = (y) => H - M - ((y - low) / (high - low)) * (H - 2 * M);
  const text = (x, y, words, anchor = "middle") => svg("text", { x, y, "text-anchor": anchor }, words);
  const label = `${curve.label}, and the cells on it`;
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label },
    svg("line", { x1: M, x2: W - M, y1: py(0), y2: py(0), class: "axis" }),
    svg("line", { x1: px(0), x2: px(0), y1: M / 2, y2: H - M, class: "axis" }),
    text(M, py(0) + 16, number(first)), text(W - M, py(0) + 16, number(last)), text(px(0), py(0) + 16, "0"),
    text(px(0) - 6, py(high) + 4, number(high), "end"),
    svg("polyline", { class: "curve", points: curve.x.map((x, k) => `${px(x)},${py(curve.y[k])}`).join(" ") }));
  points.values.forEach((value, index) => {
    const x = Math.min(Math.max(value, first), last), y = height(curve, x);
    const slope = page.grids.slope.values[index], run = (last - first) / 10;
    drawing.append(svg("g", { class: "point" }, svg("title", {}, `${points.symbols[index]} = ${number(value)}`),
      svg("line", { class: "tangent",
        x1: px(x - run), y1: py(y - slope * run), x2: px(x + run), y2: py(y + slope * run) }),
      svg("circle", { cx: px(x), cy: py(y), r: 5 }),
      text(px(x) - 12, py(y) - 12, `slope ${number(slope)}`, "end")));
  });
  return el("section", { className: "extra", ariaLabel: curve.label }, el("h2", {}, curve.label), drawing);
}

export function drawBars({ page }) {
  const { label, values, target } = page.bars;
  const truth = page.grids[target].values, { symbols } = page.grids[values];
  const rows = page.grids[values].values.map((value, k) => {
    const bar = el("div", { className: "bar" });
    bar.style.setProperty("--value", value);
    bar.style.setProperty("--target", truth[k]);
    const difference = `${number(value)} − ${number(truth[k])}`;
    return el("li", {}, el("span", {}, symbol(symbols[k])), bar, el("span", {}, difference));
  });
  return el("section", { className: "extra bars", ariaLabel: label }, el("h2", {}, label),
    el("p", {}, `A bar is ${page.grids[values].label}, the mark on it ${page.grids[target].label}.`), el("ul", {}, rows));
}

export function drawWrong(model) {
  const { title, grid: name, right = "dx", loss } = model.page.wrong;
  const [good, bad] = [right, name].map((each) => drawGrid(model, each, false));
  const { values } = model.page.grids[right];
  const differing = bad.cells.filter((_, k) => Math.abs(values[k] - model.page.grids[name].values[k]) > 1e-9);
  for (const cell of differing) cell.classList.add("differs");
  const rate = loss.rate === undefined ? "" : ` of rate ${number(loss.rate)}`;
  const steps = [["before the step", loss.before], [`after a step${rate} along the right gradient`, loss.right],
    ["after the same step along the wrong one", loss.wrong]];
  const highest = Math.max(...steps.map(([, value]) => Math.abs(value)));
  const bars = steps.map(([words, value]) => {
    const bar = el("div", { className: "bar" });
    bar.style.setProperty("--value", Math.abs(value) / highest);
    return el("li", {}, el("span", {}, words), bar, el("span", {}, number(value)));
  });
  return el("section", { className: "extra bars wrong", id: "panel-wrong", ariaLabel: title },
    el("h2", {}, title),
    el("div", { className: "grids" }, good.figure, bad.figure),
    el("p", {}, `${differing.length} of ${values.length} cells differ. The loss:`),
    el("ul", {}, bars));
}
