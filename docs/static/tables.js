// Tables in a container of the class "sortable": a click on a column's head sorts by that column, and
// a field above the table shows only the rows that contain some text.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".sortable table")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const text = (row, column) => row.cells[column].textContent.trim();

    const sort = (head, column) => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = (a, b) => text(a, column).localeCompare(text(b, column), "en", { numeric: true });
      rows.sort((a, b) => (up ? compare(a, b) : compare(b, a)));
      body.append(...rows);
    };
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.tabIndex = 0;
      head.addEventListener("click", () => sort(head, column));
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          sort(head, column);
        }
      });
    });

    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "Show rows with ...";
    field.setAttribute("aria-label", "Show rows with this text");
    const count = document.createElement("span");
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/);
      for (const row of rows) {
        const told = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => told.includes(word));
      }
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
    };
    field.addEventListener("input", filter);
    filter();
    const line = document.createElement("p");
    line.className = "filter";
    line.append(field, " ", count);
    table.closest(".sortable").prepend(line);
  }
});
