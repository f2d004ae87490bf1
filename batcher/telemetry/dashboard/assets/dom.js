// The few things that the page does with its document. Text is only ever set as text.

export const find = (id) => document.getElementById(id);

export function text(target, value) {
  const element = typeof target === "string" ? find(target) : target;
  const wanted = value == null ? "" : String(value);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function show(id, visible) {
  find(id).hidden = !visible;
}

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const NAMESPACE = "http://www.w3.org/2000/svg";

export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Bring the children of a parent in line with items. A child stays the same element as long as its key does, so that
// a selection, an open detail or the focus survives.
export function keep(parent, items, keyOf, create, update) {
  const known = new Map();
  for (const child of parent.children) known.set(child.dataset.key, child);
  let before = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = known.get(key);
    if (child) known.delete(key);
    else {
      child = create(item);
      child.dataset.key = key;
    }
    update(child, item);
    if (child === before) before = before.nextElementSibling;
    else parent.insertBefore(child, before);
  }
  for (const gone of known.values()) gone.remove();
}

// Rows of a table: the first cell is the head of its row. A cell is text, or a function that fills it.
export function rows(id, items, keyOf, columns) {
  keep(
    find(id),
    items,
    keyOf,
    () => make("tr", {}, ...columns.map((column, at) => make(at ? "td" : "th", at ? { class: column.class || "" } : { scope: "row", class: column.class || "" }))),
    (row, item) => {
      columns.forEach((column, at) => {
        const cell = row.children[at];
        if (column.fill) column.fill(cell, item);
        else text(cell, column.text(item));
        if (column.tone) cell.dataset.tone = column.tone(item) || "";
        if (column.tone) cell.className = `${column.class || ""} ${column.tone(item) || ""}`.trim();
      });
    },
  );
}
