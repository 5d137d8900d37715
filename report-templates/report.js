"use strict";
(() => {
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  const make = (name, text, props) => Object.assign(document.createElement(name), { textContent: text || "" }, props);

  // Links into closed parts open them, also on arrival.
  const reveal = () => {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { return; }
    const target = id && document.getElementById(id);
    if (!target) return;
    for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Print shows everything, then folds it again.
  let folded = [];
  addEventListener("beforeprint", () => { folded = all("details:not([open])"); folded.forEach(d => { d.open = true; }); });
  addEventListener("afterprint", () => { folded.forEach(d => { d.open = false; }); });

  // Sorting: a button in each heading; missing values always last.
  const key = cell => {
    const v = cell.dataset.v;
    if (v !== undefined) return Number(v);
    const text = cell.textContent.trim();
    return text === "" || text === "–" ? null : text;
  };
  const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  const sortBy = (table, column, th) => {
    const down = th.getAttribute("aria-sort") ? th.getAttribute("aria-sort") === "ascending" : th.classList.contains("num");
    all("th[aria-sort]", table).forEach(h => h.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, row => [key(row.cells[column]), row]);
    rows.sort((x, y) => (x[0] === null) - (y[0] === null) || (down ? -1 : 1) * order(x[0], y[0]));
    body.append(...rows.map(r => r[1]));
  };

  // CSV: full texts, and nothing that a spreadsheet would run.
  const csvCell = cell => {
    const pre = cell.querySelector("pre");
    let text = (cell.classList.contains("name") && cell.title) || (pre ? pre.textContent : cell.dataset.v !== undefined && cell.classList.contains("num") ? cell.dataset.v : cell.textContent.trim());
    if (/^[\s]*[=+\-@]/.test(text) && !/^-?\d+(\.\d+)?$/.test(text)) text = "'" + text;
    return '"' + text.replace(/"/g, '""') + '"';
  };
  const csv = table => [...table.tHead.rows, ...table.tBodies[0].rows].filter(r => !r.hidden).map(r => Array.from(r.cells, csvCell).join(",")).join("\r\n");

  for (const table of all("table")) {
    Array.from(table.tHead.rows[0].cells).forEach((th, column) => {
      if (all("tbody .fig", table).length && table.tBodies[0].rows[0] && table.tBodies[0].rows[0].cells[column].classList.contains("fig")) return;
      const button = make("button", "", { className: "sort", type: "button" });
      const keep = th.querySelector(".caveat");
      while (th.firstChild && th.firstChild !== keep) button.append(th.firstChild);
      th.prepend(button);
      button.addEventListener("click", () => sortBy(table, column, th));
    });
    const copy = make("button", "Copy CSV", { className: "copy", type: "button" });
    copy.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(csv(table)); copy.textContent = "Copied"; } catch { copy.textContent = "Not allowed"; }
      setTimeout(() => { copy.textContent = "Copy CSV"; }, 1500);
    });
    table.parentElement.append(copy);
  }

  // Filter: rows and cards that hold all words.
  const tools = document.getElementById("tools");
  const input = make("input", "", { type: "search", placeholder: "Filter  /", autocomplete: "off", spellcheck: false });
  input.setAttribute("aria-label", "Filter rows and cards");
  const told = make("span", "", { className: "n" });
  told.setAttribute("role", "status");
  const help = make("button", "?", { type: "button", title: "Keys" });
  help.setAttribute("aria-label", "Keyboard help");
  tools.append(told, input, help);
  tools.hidden = false;
  const things = all("tbody tr, details.card").map(e => [e, null]);
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const pair of things) {
      if (pair[1] === null) pair[1] = (pair[0].textContent + " " + all("[title]", pair[0]).map(e => e.title).join(" ")).toLowerCase();
      const fits = words.every(w => pair[1].includes(w));
      pair[0].hidden = !fits;
      if (fits) shown++;
    }
    told.textContent = words.length ? shown + (shown === 1 ? " match" : " matches") : "";
  };
  let timer = 0;
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(filter, 80); });

  // Keys.
  const dialog = make("dialog", "");
  dialog.setAttribute("aria-label", "Keyboard help");
  const keys = make("dl", "");
  for (const [k, what] of [["/", "filter rows and cards"], ["j / k", "next, previous finding, service or node"], ["Enter", "open or close it"], ["Esc", "clear the filter"], ["?", "this help"]]) keys.append(make("dt", k), make("dd", what));
  const close = make("button", "Close", { type: "button" });
  close.addEventListener("click", () => dialog.close());
  dialog.append(keys, close);
  document.body.append(dialog);
  help.addEventListener("click", () => dialog.showModal());
  let at = -1;
  const walk = by => {
    const stops = all("[data-stop]").filter(e => !e.hidden);
    if (!stops.length) return;
    at = Math.min(stops.length - 1, Math.max(0, at + by));
    const focus = stops[at].querySelector("summary, h3");
    if (focus.tagName === "H3") focus.tabIndex = -1;
    focus.focus({ preventScroll: true });
    stops[at].scrollIntoView({ block: "start" });
  };
  addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.target === input) { if (e.key === "Escape") { input.value = ""; filter(); input.blur(); } return; }
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) return;
    if (e.key === "/") { e.preventDefault(); input.focus(); }
    else if (e.key === "j") walk(1);
    else if (e.key === "k") walk(-1);
    else if (e.key === "?") dialog.showModal();
  });

  // The section in view is marked in the bar.
  const links = new Map(all(".bar li a").map(a => [a.getAttribute("href").slice(1), a]));
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) if (entry.isIntersecting) {
      links.forEach(a => a.removeAttribute("aria-current"));
      const link = links.get(entry.target.id);
      if (link) link.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  all("main > section").forEach(s => seen.observe(s));
})();
