// Grids of numbers: drawn as tables, one for each sheet; walked by arrows; marked with what a step touches.

import { cellOf, keyOf, sheetsOf, tensorOf } from "./data.js";
import { cellSpeech, el, number, symbol } from "./text.js";

const SHEETS = 16; // of more a grid scrolls
const MARKS = ["window", "top", "right", "bottom", "left", "lit", "now", "chosen", "echo"];

function drawCell(model, name, index, symbols) {
  const grid = model.page.grids[name];
  const value = grid.values[index];
  const key = keyOf(model.page, name, index);
  const text = symbols && key !== null ? symbol(grid.symbols[index]) : [number(value)];
  const kind = key === null ? "zero" : symbols ? "letter" : value < 0 ? "negative" : "positive";
  const cell = el("td", { className: kind, tabIndex: -1, ariaLabel: cellSpeech(model, name, index) },
    el("span", { className: "value" }, text));
  cell.dataset.grid = name;
  cell.dataset.index = index;
  if (key !== null) cell.dataset.key = key;
  cell.style.setProperty("--length", cell.textContent.length);
  cell.style.setProperty("--strength", `${Math.round((80 * Math.abs(value)) / (model.largest.get(name) || 1))}%`);
  return cell;
}

/** A figure with the grid's sheets. Its cells are `cells`, in the order of the data. */
export function drawGrid(model, name, symbols) {
  const grid = model.page.grids[name];
  const tensor = tensorOf(model.page, name), whole = sheetsOf(tensor), { label } = tensor;
  const { rows, columns, sheets } = sheetsOf(grid);
  const cells = grid.values.map((_, index) => drawCell(model, name, index, symbols));
  const tables = sheets.map((sheet, s) => {
    const first = s * rows * columns, own = cells.slice(first, first + rows * columns);
    const [, index] = cellOf(own.find((cell) => cell.dataset.key)?.dataset.key ?? `:${first}`);
    const place = whole.sheets[Math.floor(index / (whole.rows * whole.columns))].name;
    const lines = Array.from({ length: rows }, (_, row) =>
      el("tr", {}, own.slice(row * columns, (row + 1) * columns)));
    const name = place && `${label}[${place}]`;
    const table = el("table", { role: "grid", ariaLabel: `${grid.title} ${name || label}` }, el("tbody", {}, lines));
    const holder = el("div", { className: "sheet" }, name ? el("div", { className: "sheet-name" }, name) : [], table);
    holder.style.gridArea = `${sheet.row} / ${sheet.column}`;
    return holder;
  });
  const range = symbols ? [] : el("span", { className: "range" }, ` ±${number(model.largest.get(name))}`);
  const caption = el("figcaption", {}, el("b", {}, label), range, el("div", {}, grid.title));
  const figure = el("figure", { className: `grid ${grid.role}` }, caption, el("div", { className: "sheets" }, tables));
  figure.style.setProperty("--columns", columns);
  figure.classList.toggle("many", sheets.length > SHEETS);
  cells[0].tabIndex = 0;
  figure.addEventListener("keydown", (event) => walk(event, cells, columns));
  figure.addEventListener("focusin", (event) => {
    for (const cell of cells) cell.tabIndex = cell === event.target ? 0 : -1;
  });
  const byKey = Map.groupBy(cells, (cell) => cell.dataset.key);
  return { name, figure, cells, byKey, rows, columns, marked: [] };
}

function walk(event, cells, columns) {
  const at = cells.indexOf(event.target);
  const column = at % columns;
  const to = {
    ArrowLeft: column > 0 ? at - 1 : at,
    ArrowRight: column < columns - 1 ? at + 1 : at,
    ArrowUp: at - columns,
    ArrowDown: at + columns,
    Home: 0,
    End: cells.length - 1,
  }[event.key];
  if (at < 0 || to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  event.stopPropagation();
  cells[to]?.focus();
}

/** The window's outline runs where the neighbour is not in the window. Returns its cells. */
function outline({ cells, rows, columns }, window) {
  const inside = new Set(window);
  for (const index of inside) {
    const column = index % columns, row = Math.floor(index / columns) % rows;
    const sides = {
      top: row === 0 || !inside.has(index - columns),
      bottom: row === rows - 1 || !inside.has(index + columns),
      left: column === 0 || !inside.has(index - 1),
      right: column === columns - 1 || !inside.has(index + 1),
    };
    cells[index].classList.add("window", ...Object.keys(sides).filter((side) => sides[side]));
  }
  return [...inside].map((index) => cells[index]);
}

/** What a step touches: each factor's key, with the other factors of its terms. */
export function touched(model, step) {
  const partners = new Map();
  for (const { factors } of step.terms) {
    factors.forEach(([name, index], k) => {
      const key = keyOf(model.page, name, index);
      const others = factors.filter((_, other) => other !== k);
      partners.set(key, partners.has(key) ? [] : others);
    });
  }
  return partners;
}

/** The marks of a panel's grids: its own step, and the step of the panel in hand as an echo. */
export function markPanel(model, panel, step, grids, echo, symbols) {
  const partners = touched(model, step);
  const result = keyOf(model.page, panel.result, step.cell);
  const keys = new Set([...partners.keys(), ...echo, result]);
  for (const grid of grids) {
    for (const cell of grid.marked) {
      cell.classList.remove(...MARKS);
      delete cell.firstChild.dataset.by;
    }
    grid.marked = [...keys].flatMap((key) => grid.byKey.get(key) ?? []);
    for (const cell of grid.marked) {
      const { key } = cell.dataset;
      if (partners.has(key)) cell.classList.add("lit");
      if (key === result && grid.name === panel.result) cell.classList.add("now");
      if (echo.has(key)) cell.classList.add("echo");
      if (grid.name !== panel.over || !partners.get(key)?.length) continue;
      const shown = partners.get(key).map(([name, index]) => {
        const { symbols: letters, values } = model.page.grids[name];
        return symbols ? letters[index] : number(values[index]);
      });
      const by = `×${shown.join("×")}`;
      cell.firstChild.dataset.by = by;
      cell.firstChild.classList.toggle("tight", by.length > 6);
    }
    if (grid.name === panel.moving) grid.marked.push(...outline(grid, step.moved ?? grid.cells.keys()));
    if (grid.name !== panel.over) continue;
    grid.marked.push(...outline(grid, step.window ?? []));
    for (const index of step.chosen ?? []) grid.cells[index].classList.add("chosen");
  }
}
