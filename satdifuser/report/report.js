"use strict";
(() => {
  const table = document.getElementById("rows");
  if (table) {
    const body = table.tBodies[0];
    const first = Array.from(body.rows);
    const heads = Array.from(table.tHead.rows[0].cells);
    const form = document.getElementById("filters");
    const words = document.getElementById("words");
    const selects = Array.from(form.querySelectorAll("select"));
    const count = document.getElementById("count");

    const value = (row, column, kind) => {
      const cell = row.cells[column];
      if (kind === "text") return cell.textContent.trim();
      return cell.dataset.value === "" ? null : Number(cell.dataset.value);
    };
    // What has no value comes last in either direction; equal rows keep their order.
    const sort = (column, sign) => {
      const kind = heads[column].dataset.kind;
      const rows = Array.from(body.rows).map((row) => [value(row, column, kind), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (kind === "text" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
      });
      body.append(...rows.map(([, row]) => row));
      heads.forEach((head, n) => {
        if (n === column) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
    };
    // A line above each task and budget, while rows stand by them.
    const rule = () => {
      const sorted = heads.some((head) => head.hasAttribute("aria-sort"));
      let last = null;
      for (const row of body.rows) {
        if (row.hidden) continue;
        const key = row.dataset.task + "/" + row.dataset.budget;
        row.classList.toggle("starts", !sorted && last !== null && key !== last);
        last = key;
      }
    };
    const filter = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const text = Array.from(row.querySelectorAll(".key"), (cell) => cell.textContent).join(" ").toLowerCase();
        const matches = wanted.every((word) => text.includes(word)) &&
          selects.every((select) => !select.value || row.dataset[select.dataset.key] === select.value);
        row.hidden = !matches;
        shown += matches;
      }
      count.textContent = `${shown} of ${first.length} row${first.length === 1 ? "" : "s"}`;
      rule();
    };

    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      head.dataset.name = head.textContent.trim();
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        sort(column, head.getAttribute("aria-sort") === "ascending" ? -1 : 1);
        rule();
      });
    });
    words.addEventListener("input", filter);
    selects.forEach((select) => select.addEventListener("change", filter));
    form.addEventListener("submit", (event) => event.preventDefault());
    document.getElementById("clear").addEventListener("click", () => {
      form.reset();
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      body.append(...first);
      filter();
    });
    form.hidden = false;
    filter();
  }

  const closed = [];
  window.addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details.printed:not([open])")) {
      one.open = true;
      closed.push(one);
    }
  });
  window.addEventListener("afterprint", () => closed.splice(0).forEach((one) => { one.open = false; }));
})();
