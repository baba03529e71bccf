// The JSON block, and what follows from it by looking up. No number is computed here.

export const data = JSON.parse(document.getElementById("manualbp-data").textContent);

/** Writes into the grids of single maps what is left out there: values, from the nested lists, and symbols. */
function fill(page) {
  for (const [name, grid] of Object.entries(page.grids)) {
    if (grid.values) continue;
    const of = page.grids[grid.of];
    grid.values = of ? grid.at.map((index) => (index < 0 ? 0 : of.values[index])) : page[name].flat(Infinity);
    grid.symbols ??= grid.at.map((index) => (index < 0 ? "0" : of.symbols[index]));
  }
}

/** The tensor that a grid shows: itself, or that of which it is the padded or rotated one. */
export function tensorOf(page, name) {
  while (page.grids[name].of !== undefined) name = page.grids[name].of;
  return page.grids[name];
}

/** The cell that a cell stands for, as "grid:index". Of a padded or rotated grid it is another's; null: of none. */
export function keyOf(page, name, index) {
  let grid = page.grids[name];
  while (grid.of !== undefined) {
    index = grid.at[index];
    if (index < 0) return null;
    name = grid.of;
    grid = page.grids[name];
  }
  return `${name}:${index}`;
}

export function cellOf(key) {
  const colon = key.lastIndexOf(":");
  return [key.slice(0, colon), Number(key.slice(colon + 1))];
}

/** A term of the data as {coefficient, factors: [[grid, index], ...]}. */
function readTerm(panel, term) {
  if (!Array.isArray(term)) return { coefficient: term.c ?? 1, factors: term.f };
  const indices = panel.coefficient ? term.slice(1) : term;
  const coefficient = panel.coefficient ? term[0] : 1;
  return { coefficient, factors: indices.map((index, k) => [panel.factors[k], index]) };
}

/** A step with its terms read. Of a sliding window without a list they are the cells that lie on each other. */
function readStep(page, panel, step) {
  const terms = (step.terms ?? []).map((term) => readTerm(panel, term));
  if (!panel.slide) return { ...step, terms };
  const window = panel.slide.map((index) => index + step.shift);
  const pairs = window.map((index, moved) => panel.factors.map((name) => [name, name === panel.over ? index : moved]));
  const products = pairs.filter((factors) => factors.every(([name, index]) => keyOf(page, name, index) !== null));
  return { ...step, window, terms: [...products.map((factors) => ({ coefficient: 1, factors })), ...terms] };
}

function put(map, key, entry) {
  if (key === null) return;
  if (!map.has(key)) map.set(key, []);
  map.get(key).push(entry);
}

/** A page with its terms read, `made` (a cell's own steps) and `used` (the steps and terms that it takes part in). */
export function modelOf(page) {
  fill(page);
  const made = new Map(), used = new Map(), largest = new Map();
  const panels = page.panels.map((panel) => ({
    ...panel,
    steps: panel.steps.map((step) => readStep(page, panel, step)),
  }));
  panels.forEach((panel, p) => panel.steps.forEach((step, s) => {
    put(made, keyOf(page, panel.result, step.cell), { p, s });
    for (const term of step.terms) {
      const keys = new Set(term.factors.map(([name, index]) => keyOf(page, name, index)));
      for (const key of keys) put(used, key, { p, s, term });
    }
  }));
  for (const [name, grid] of Object.entries(page.grids)) {
    largest.set(name, grid.values.reduce((most, value) => Math.max(most, Math.abs(value)), 0));
  }
  return { page, panels, made, used, largest };
}

/** Rows and columns of one sheet, and the names of the sheets: the indices before the last two, counted from 1. */
export function sheetsOf(grid) {
  const shape = grid.shape.length ? grid.shape : [1];
  const columns = shape.at(-1), rows = shape.at(-2) ?? 1;
  const outer = shape.slice(0, -2);
  const count = outer.reduce((product, extent) => product * extent, 1);
  const sheets = Array.from({ length: count }, (_, sheet) => {
    let rest = sheet;
    const indices = [...outer].reverse().map((extent) => {
      const index = rest % extent;
      rest = (rest - index) / extent;
      return index + 1;
    }).reverse();
    const row = indices.at(-1) ?? 1, column = (sheet - (row - 1)) / (outer.at(-1) ?? 1) + 1;
    return { row, column, name: indices.filter((_, axis) => outer[axis] > 1).join(", ") };
  });
  return { rows, columns, sheets };
}
