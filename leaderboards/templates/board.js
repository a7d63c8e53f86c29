"use strict";
(function () {
  var root = document.documentElement;

  function store(value) {
    try { if (value) { localStorage.setItem("theme", value); } return localStorage.getItem("theme"); } catch (error) { return null; }
  }
  var button = document.querySelector("[data-theme-switch]");
  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function label() { button.textContent = isDark() ? "Light" : "Dark"; button.setAttribute("aria-label", "Use " + (isDark() ? "light" : "dark") + " colours"); }
  var kept = store();
  if (kept === "dark" || kept === "light") { root.dataset.theme = kept; }
  button.hidden = false;
  label();
  button.addEventListener("click", function () {
    root.dataset.theme = isDark() ? "light" : "dark";
    store(root.dataset.theme);
    label();
  });

  function valueOf(row, place, kind) {
    var text = row.cells[place].dataset.v;
    if (text === undefined || text === "") { return null; }
    return kind === "number" ? parseFloat(text) : text.toLowerCase();
  }
  function sortBody(body, place, kind, way) {
    var rows = Array.from(body.querySelectorAll("tr[data-row]"));
    rows.sort(function (a, b) {
      var x = valueOf(a, place, kind), y = valueOf(b, place, kind);
      if (x === null || y === null) { return (x === null) - (y === null) || a.dataset.at - b.dataset.at; }
      if (x < y) { return -way; }
      if (x > y) { return way; }
      return a.dataset.at - b.dataset.at;
    });
    rows.forEach(function (row) { body.appendChild(row); });
  }
  function sortTable(table, place, way) {
    var heads = table.tHead.rows[0].cells;
    Array.from(heads).forEach(function (head, at) {
      head.setAttribute("aria-sort", at === place ? (way > 0 ? "ascending" : "descending") : "none");
    });
    table.dataset.sort = place + "," + way;
    Array.from(table.tBodies).forEach(function (body) { sortBody(body, place, heads[place].dataset.kind, way); });
  }
  function makeSortable(table) {
    table.querySelectorAll("tr[data-row]").forEach(function (row, at) { row.dataset.at = at; });
    Array.from(table.tHead.rows[0].cells).forEach(function (head, place) {
      var press = document.createElement("button");
      press.type = "button";
      var text = head.querySelector("span");
      press.textContent = text.textContent;
      text.replaceWith(press);
      if (head.hasAttribute("aria-sort")) { table.dataset.sort = table.dataset.sorted = place + ",-1"; } else { head.setAttribute("aria-sort", "none"); }
      press.addEventListener("click", function () {
        var now = head.getAttribute("aria-sort"), number = head.dataset.kind === "number";
        var way = now === "none" ? (number ? -1 : 1) : now === "ascending" ? -1 : 1;
        sortTable(table, place, way);
        remember();
      });
    });
  }
  var boards = Array.from(document.querySelectorAll("table[data-board]"));
  boards.forEach(makeSortable);
  document.querySelectorAll("table[data-matrix]").forEach(makeSortable);

  document.querySelectorAll("[data-plots]").forEach(function (box) {
    var figures = Array.from(box.querySelectorAll("figure"));
    if (figures.length < 2) { return; }
    var choice = document.createElement("select");
    choice.setAttribute("aria-label", "Column to plot");
    figures.forEach(function (figure, at) {
      choice.add(new Option(figure.querySelector("figcaption").textContent, figure.dataset.plot));
      figure.hidden = at > 0;
    });
    choice.addEventListener("change", function () {
      figures.forEach(function (figure) { figure.hidden = figure.dataset.plot !== choice.value; });
    });
    box.querySelector("summary").after(choice);
  });

  var tools = document.querySelector("[data-tools]");
  if (!tools) { return; }
  tools.hidden = false;
  tools.addEventListener("submit", function (event) { event.preventDefault(); });

  function regroup(table, by) {
    var rows = Array.from(table.querySelectorAll("tr[data-row]"));
    rows.sort(function (a, b) { return a.dataset.at - b.dataset.at; });
    var span = table.tHead.rows[0].cells.length;
    Array.from(table.tBodies).forEach(function (body) { body.remove(); });
    var bodies = new Map();
    rows.forEach(function (row) {
      var name = by === "none" ? "" : by === "base" ? row.dataset.base : row.dataset.size;
      if (!bodies.has(name)) {
        var body = table.createTBody();
        body.dataset.group = name;
        if (name) {
          var head = body.insertRow();
          head.className = "group";
          var cell = document.createElement("th");
          cell.scope = "rowgroup";
          cell.colSpan = span;
          cell.textContent = name + " ";
          cell.appendChild(document.createElement("small"));
          head.appendChild(cell);
        }
        bodies.set(name, body);
      }
      bodies.get(name).appendChild(row);
    });
    if (table.dataset.sort) {
      var last = table.dataset.sort.split(",").map(Number);
      sortTable(table, last[0], last[1]);
    }
  }
  function filter() {
    var words = tools.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    var reported = tools.elements.reported.checked, shown = 0, all = 0;
    boards.forEach(function (table) {
      var inTable = 0;
      Array.from(table.tBodies).forEach(function (body) {
        var here = 0;
        body.querySelectorAll("tr[data-row]").forEach(function (row) {
          var text = (row.cells[0].textContent + " " + row.dataset.base).toLowerCase();
          var keep = words.every(function (word) { return text.includes(word); }) && (reported || row.dataset.reported === "0");
          row.hidden = !keep;
          here += keep;
          all += 1;
        });
        body.hidden = here === 0;
        var small = body.querySelector("tr.group small");
        if (small) { small.textContent = here; }
        inTable += here;
      });
      table.closest("section").hidden = inTable === 0;
      var listed = document.querySelector('.contents a[href="#' + table.id + '-title"]');
      if (listed) { listed.parentNode.hidden = inTable === 0; }
      shown += inTable;
    });
    tools.querySelector("[data-count]").textContent = shown === all ? shown + " rows" : shown + " of " + all + " rows";
  }
  var columns = new Map(), unshown = [];
  boards.forEach(function (table) {
    Array.from(table.tHead.rows[0].cells).forEach(function (head) {
      var key = head.dataset.key;
      if (key === "name" || columns.has(key)) { return; }
      columns.set(key, head.querySelector("button").textContent);
      // A phone has room for the scores alone; the menu brings the rest back.
      if (head.classList.contains("opt") && matchMedia("(max-width: 46rem)").matches) { unshown.push(key); }
    });
  });
  function showColumn(key, visible) {
    boards.forEach(function (table) {
      Array.from(table.tHead.rows[0].cells).forEach(function (head, place) {
        if (head.dataset.key !== key) { return; }
        head.hidden = !visible;
        table.querySelectorAll("tr[data-row]").forEach(function (row) { row.cells[place].hidden = !visible; });
      });
    });
  }
  var menu = tools.querySelector("[data-columns]");
  columns.forEach(function (text, key) {
    var line = document.createElement("label"), box = document.createElement("input");
    line.className = "check";
    box.type = "checkbox";
    box.checked = true;
    box.value = key;
    box.name = "column";
    line.append(box, text);
    menu.appendChild(line);
    box.addEventListener("change", function () { showColumn(key, box.checked); remember(); });
  });
  tools.querySelector(".menu").addEventListener("keydown", function (event) {
    if (event.key === "Escape") { event.currentTarget.open = false; event.currentTarget.querySelector("summary").focus(); }
  });

  function remember() {
    if (!tools) { return; }
    var state = new URLSearchParams();
    if (tools.elements.q.value) { state.set("q", tools.elements.q.value); }
    if (tools.elements.group.value !== "size") { state.set("group", tools.elements.group.value); }
    if (!tools.elements.reported.checked) { state.set("reported", "0"); }
    var hidden = Array.from(menu.querySelectorAll("input:not(:checked)")).map(function (box) { return box.value; });
    if (String(hidden) !== String(unshown)) { state.set("hide", hidden.join(",")); }
    boards.forEach(function (table) { if (table.dataset.sort !== table.dataset.sorted) { state.set("sort." + table.id, table.dataset.sort); } });
    var text = state.toString();
    try { history.replaceState(null, "", text ? "#" + text : location.pathname + location.search); } catch (error) { return; }
  }
  function restore() {
    var state = new URLSearchParams(location.hash.slice(1));
    tools.elements.q.value = state.get("q") || "";
    if (["base", "none"].includes(state.get("group"))) { tools.elements.group.value = state.get("group"); regroupAll(); }
    tools.elements.reported.checked = state.get("reported") !== "0";
    var hidden = state.has("hide") ? state.get("hide").split(",") : unshown;
    menu.querySelectorAll("input").forEach(function (box) {
      if (hidden.includes(box.value)) { box.checked = false; showColumn(box.value, false); }
    });
    boards.forEach(function (table) {
      var sort = /^(\d+),(-?1)$/.exec(state.get("sort." + table.id) || "");
      if (sort && Number(sort[1]) < table.tHead.rows[0].cells.length) { sortTable(table, Number(sort[1]), Number(sort[2])); }
    });
    filter();
  }
  function regroupAll() { boards.forEach(function (table) { regroup(table, tools.elements.group.value); }); }
  tools.elements.q.addEventListener("input", function () { filter(); remember(); });
  tools.elements.reported.addEventListener("change", function () { filter(); remember(); });
  tools.elements.group.addEventListener("change", function () { regroupAll(); filter(); remember(); });
  restore();
}());
