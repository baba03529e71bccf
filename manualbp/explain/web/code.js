// The code: the lines beside a panel, and at the end of the page the files that they stand in.

import { data } from "./data.js";
import { el, link } from "./text.js";

const linesOf = (file) => data.files[file].split(/(?<=\n)/);
const listing = (label, code) => el("pre", { tabIndex: 0, ariaLabel: label, role: "group" }, code);

/** The lines that a panel names, without their common indentation. `read` opens their file. */
export function drawLines(page, panel, read) {
  const { file, line: start, end } = panel.code;
  const where = `${file}, ${end > start ? `lines ${start}–${end}` : `line ${start}`}`;
  const lines = linesOf(file).slice(start - 1, end);
  const margin = Math.min(...lines.filter((text) => text.trim()).map((text) => text.search(/\S/)));
  const code = el("code", {}, lines.map((text) => text.trim() && text.slice(margin)));
  return el("div", { className: "code" },
    link(`${page.id}/${panel.id}`, () => read(panel.id), where),
    el("details", { open: innerWidth > 800 }, el("summary", {}, "These lines"), listing(where, code)));
}

/** The files that the panels of a page name. `show(panel)` opens one at its lines; `leave` is for the link back. */
export function drawFiles({ page, panels }, leave) {
  const files = [...new Set(panels.map((panel) => panel.code.file))].map((file) => {
    const lines = linesOf(file).map((text) => el("span", { className: "line" }, text));
    const code = el("code", {}, lines);
    return { file, lines, code, details: el("details", {}, el("summary", {}, file), listing(file, code)) };
  });
  const element = el("section", { className: "extra files", ariaLabel: "The code" },
    el("h2", {}, "The code"),
    el("p", { className: "say" }, "The files with the lines that computed this page's numbers."),
    files.map(({ details }) => details));

  function show({ code: { file, line: start, end } }) {
    for (const { lines, code, details } of files) {
      code.replaceChildren(...lines);
      details.open = false;
    }
    const { lines, code, details } = files.find((each) => each.file === file);
    const mark = el("mark", { tabIndex: -1 }, lines.slice(start - 1, end));
    const back = link(page.id, leave, "‹ Back to the panel");
    code.replaceChildren(...lines.slice(0, start - 1), mark, back, ...lines.slice(end));
    details.open = true;
    mark.focus({ preventScroll: true });
    mark.scrollIntoView({ block: "start" });
  }
  return { element, show };
}
