"use strict";
// Tables are sorted by a button in each heading, and long ones are filtered by a word. Without this script they are as
// they were written.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[table.tBodies.length - 1];
  const heads = [...table.tHead.rows[0].cells];
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? (cell.dataset.value === "" ? null : Number(cell.dataset.value)) : cell.textContent.trim();
  };
  const sort = (column, up) => {
    const rows = [...body.rows];
    rows.sort((a, b) => {
      const [x, y] = [valueOf(a, column), valueOf(b, column)];
      if (x === null || y === null) return (x === null) - (y === null);
      const order = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
      return up ? order : -order;
    });
    body.append(...rows);
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const text = body.rows.length > 0 && !("value" in body.rows[0].cells[column].dataset);
      sort(column, now ? now === "descending" : text);
    });
  });
  if (body.rows.length > 10) {
    const label = document.createElement("label");
    label.className = "filter";
    label.textContent = "Show rows with ";
    const input = document.createElement("input");
    input.type = "search";
    const count = document.createElement("span");
    count.setAttribute("role", "status");
    label.append(input);
    const bar = document.createElement("p");
    bar.className = "bar";
    bar.append(label, count);
    table.closest(".scroll").before(bar);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/);
      let left = 0;
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        left += !row.hidden;
      }
      count.textContent = input.value ? ` ${left} of ${body.rows.length}` : "";
    });
  }
}
// What is folded is printed too.
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details:not([open])")) {
    each.open = true;
    each.dataset.folded = "";
  }
});
addEventListener("afterprint", () => {
  for (const each of document.querySelectorAll("details[data-folded]")) {
    each.open = false;
    delete each.dataset.folded;
  }
});
