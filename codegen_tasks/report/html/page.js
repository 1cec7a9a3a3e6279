"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const made = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "onclick") element.onclick = value;
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  };
  const counted = (n) => n.toLocaleString("en");

  // Words as the page's own: µs to text.
  const duration = (us) => {
    const s = us / 1e6;
    if (s >= 99.95) return `${Math.floor(Math.round(s) / 60)} min ${String(Math.round(s) % 60).padStart(2, "0")} s`;
    if (s >= 0.9995) return `${s.toFixed(s < 9.995 ? 2 : 1)} s`;
    if (us >= 999.5) return `${(us / 1e3).toFixed(us >= 9950 ? 0 : 1)} ms`;
    return `${us.toFixed(0)} µs`;
  };

  const tick = (us) => {
    const [value, unit] = us >= 1e6 ? [us / 1e6, "s"] : us >= 1e3 ? [us / 1e3, "ms"] : [us, "µs"];
    return `${Number(value.toPrecision(9))} ${unit}`;
  };

  // The timeline --------------------------------------------------------------------------

  const timeline = () => {
    const box = byId("lanes");
    if (!box) return;
    const phases = ["templates", "generate", "compile", "output", "other"];
    const whole = data.total * 1e6;
    const drawings = [...box.querySelectorAll(".rows")].map((rows) => [...rows.querySelectorAll("svg")]);
    const readout = byId("readout");
    let from = 0;
    let to = whole;
    let active = null;

    // Neighbours too narrow to be told apart become one bar.
    const merged = (row) => {
      const narrow = (to - from) / 1200;
      const found = [];
      for (const [start, length, phase, critical, failed, label] of row) {
        const end = start + length;
        if (end < from || start > to) continue;
        const last = found[found.length - 1];
        if (last && last.phase === phase && last.critical === critical && last.failed === failed
            && start - last.end < narrow && length < narrow && (last.count > 1 || last.end - last.start < narrow)) {
          last.end = Math.max(last.end, end);
          last.count += 1;
          last.label = `${counted(last.count)} × ${phases[phase]}`;
        } else {
          found.push({ start, end, phase, critical, failed, label, count: 1 });
        }
      }
      return found;
    };
    const shape = (kind, x, y, width, height) => {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      rect.setAttribute("class", kind);
      for (const [key, value] of Object.entries({ x, y, width, height })) rect.setAttribute(key, value);
      return rect;
    };
    const drawRow = (svg, row) => {
      const scale = 1000 / (to - from);
      svg.replaceChildren();
      for (const bar of merged(row)) {
        const x = Math.max(-10, (bar.start - from) * scale);
        const width = Math.max(bar.failed ? 2.5 : 0.8, Math.min(1010, (bar.end - from) * scale) - x);
        const rect = shape(`bar ${phases[bar.phase]}${bar.failed ? " broken" : ""}${width > 4 ? " roomy" : ""}`, x, 1, width, 19);
        const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
        title.textContent = `${bar.label}: ${duration(bar.end - bar.start)}, from ${duration(bar.start)}`
          + `${bar.failed ? ", failed" : ""}${bar.critical ? ", critical path" : ""}`;
        rect.append(title);
        rect.span = [bar.start, bar.end];
        svg.append(rect);
        if (bar.critical) svg.append(shape("strip", x, 22, width, 4));
      }
    };
    const drawTicks = () => {
      let step = 1;
      for (let i = 0; (to - from) / step > 10; i += 1) step *= [2, 2.5, 2][i % 3];
      const marks = [];
      for (let at = Math.ceil((from + 1) / step) * step; at <= to; at += step) {
        marks.push(made("span", { style: `left: ${(100 * (at - from)) / (to - from)}%` }, tick(at)));
      }
      box.querySelector(".ticks").replaceChildren(...marks);
    };
    const draw = () => {
      active = null;
      drawings.forEach((rows, lane) => rows.forEach((svg, row) => drawRow(svg, data.bars[lane][row])));
      drawTicks();
    };
    const show = (start, end) => {
      const length = Math.min(whole, Math.max(20, end - start));
      from = Math.max(0, Math.min(start, whole - length));
      to = from + length;
      draw();
      readout.textContent = `shown: ${duration(from)} to ${duration(to)}`;
    };
    const zoom = (factor) => {
      const middle = active ? (active.span[0] + active.span[1]) / 2 : (from + to) / 2;
      const half = ((to - from) / factor) / 2;
      show(middle - half, middle + half);
    };
    const say = (rect) => {
      if (active) active.classList.remove("active");
      active = rect;
      rect.classList.add("active");
      readout.textContent = rect.querySelector("title").textContent;
    };
    const barsOf = (svg) => [...svg.querySelectorAll("rect.bar")];
    const move = (along, across) => {
      const all = drawings.flat();
      if (!active) return say(barsOf(all.find((svg) => barsOf(svg).length) ?? all[0])[0]);
      const here = all.indexOf(active.parentNode);
      if (along) {
        const own = barsOf(all[here]);
        return say(own[Math.max(0, Math.min(own.length - 1, own.indexOf(active) + along))]);
      }
      for (let place = here + across; all[place]; place += across) {
        const middle = (active.span[0] + active.span[1]) / 2;
        const away = (rect) => Math.abs((rect.span[0] + rect.span[1]) / 2 - middle);
        const others = barsOf(all[place]);
        if (others.length) return say(others.reduce((a, b) => (away(b) < away(a) ? b : a)));
      }
      return undefined;
    };
    const keys = {
      ArrowRight: () => move(1, 0),
      ArrowLeft: () => move(-1, 0),
      ArrowDown: () => move(0, 1),
      ArrowUp: () => move(0, -1),
      Enter: () => active && show(active.span[0] - 0.1 * (active.span[1] - active.span[0]), active.span[1] + 0.1 * (active.span[1] - active.span[0])),
      "+": () => zoom(2),
      "=": () => zoom(2),
      "-": () => zoom(0.5),
      0: () => show(0, whole),
    };
    box.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    box.addEventListener("pointerover", (event) => event.target.matches("rect.bar") && say(event.target));
    box.addEventListener("dblclick", (event) => event.target.matches("rect.bar") && (say(event.target), keys.Enter()));
    const zooms = { in: () => zoom(2), out: () => zoom(0.5), all: () => show(0, whole) };
    for (const button of document.querySelectorAll("[data-zoom]")) button.onclick = zooms[button.dataset.zoom];
    document.querySelector(".zoom").hidden = false;
    draw();
  };

  // The graph -----------------------------------------------------------------------------

  const graph = () => {
    const { columns, names, came, groups, sources } = data.graph;
    const picture = byId("picture");
    const boxes = byId("boxes");
    const search = byId("search");
    const users = names.map(() => []);
    sources.forEach((from, node) => from.forEach((source) => users[source].push(node)));
    const groupOf = new Array(names.length);
    groups.forEach(([, , nodes], group) => nodes.forEach((node) => { groupOf[node] = group; }));
    const kinds = ["other", "templates", "generate", "compile"];
    const FEW = 12;
    const opened = new Set();
    const limits = new Map();
    let chosen = null;
    let query = "";
    let visible = new Map();

    const reached = (node, next) => {
      const found = new Set();
      const todo = [node];
      while (todo.length) {
        for (const other of next[todo.pop()]) {
          if (!found.has(other)) {
            found.add(other);
            todo.push(other);
          }
        }
      }
      return found;
    };
    const related = () => {
      if (chosen !== null) return new Set([chosen, ...reached(chosen, sources), ...reached(chosen, users)]);
      if (!query) return null;
      const found = new Set();
      names.forEach((name, node) => name.toLowerCase().includes(query) && found.add(node));
      return found;
    };
    const choose = (node) => {
      chosen = node;
      limits.clear();
      render(node === null ? null : `node ${node}`);
    };
    const member = (node) => {
      const button = made("button", { type: "button", "aria-pressed": String(node === chosen), onclick: () => choose(node === chosen ? null : node) }, names[node]);
      button.dataset.key = `node ${node}`;
      visible.set(node, button);
      const item = made("li", came[node] ? { class: came[node] === "failed" ? "bad" : "came" } : {}, button);
      if (came[node]) button.title = `${came[node]} in this run`;
      return item;
    };
    // A name is broken after a slash, if it must be.
    const breakable = (name) => name.split(/(?<=\/)(?=.)/).flatMap((part) => [part, made("wbr")]).slice(0, -1);
    const groupBox = ([column, name, nodes], place, focus) => {
      const inside = focus ? nodes.filter((node) => focus.has(node)) : nodes;
      const open = focus ? inside.length > 0 && !opened.has(-1 - place) : opened.has(place);
      const most = limits.get(place) ?? FEW;
      const head = made("button", { type: "button", "aria-expanded": String(open), onclick: () => {
        const key = focus ? -1 - place : place;
        if (opened.has(key)) opened.delete(key); else opened.add(key);
        render(`group ${place}`);
      } }, made("span", {}, ...breakable(name)), made("span", {}, focus ? `${counted(inside.length)} of ${counted(nodes.length)}` : counted(nodes.length)));
      head.dataset.key = `group ${place}`;
      const box = made("div", { class: `group ${kinds[column]}${inside.length ? "" : " faint"}` }, head);
      for (const node of inside) visible.set(node, head);
      if (open) {
        const list = made("ul", {}, ...inside.slice(0, most).map(member));
        if (inside.length > most) {
          const more = made("button", { type: "button", onclick: () => { limits.set(place, most + 100); render(`node ${inside[most]}`); } }, `${counted(inside.length - most)} more`);
          list.append(made("li", { class: "more" }, more));
        }
        box.append(list);
      }
      return box;
    };
    const drawEdges = (focus) => {
      const frame = boxes.getBoundingClientRect();
      const counts = new Map();
      sources.forEach((from, node) => from.forEach((source) => {
        if (focus && !(focus.has(node) && focus.has(source))) return;
        const [a, b] = [visible.get(source), visible.get(node)];
        if (!a || !b || a === b) return;
        if (!counts.has(a)) counts.set(a, new Map());
        counts.get(a).set(b, (counts.get(a).get(b) ?? 0) + 1);
      }));
      const paths = [];
      const parts = [...boxes.children];
      const bottoms = parts.map((part) => part.lastElementChild.getBoundingClientRect().bottom - frame.top);
      const columnOf = (element) => parts.indexOf(element.closest("#boxes > div"));
      for (const [a, ends] of counts) {
        const one = (a.dataset.key.startsWith("group") ? a.parentNode : a).getBoundingClientRect();
        for (const [b, count] of ends) {
          const two = (b.dataset.key.startsWith("group") ? b.parentNode : b).getBoundingClientRect();
          const [y1, y2] = [one, two].map((r) => Math.min(r.top + r.height / 2, r.top + 18) - frame.top);
          const [x1, x2] = [one.right - frame.left, two.left - frame.left];
          // What lies between is passed below, or it would seem to have to do with it.
          const low = Math.max(-1, ...bottoms.slice(columnOf(a) + 1, columnOf(b))) + 5;
          const bend = Math.min(60, (x2 - x1) / 4);
          const d = x2 > x1 && Math.min(y1, y2) < low
            ? `M${x1},${y1} C${x1 + bend / 2},${y1} ${x1 + bend / 2},${low} ${x1 + bend},${low}`
              + ` L${x2 - bend},${low} C${x2 - bend / 2},${low} ${x2 - bend / 2},${y2} ${x2},${y2}`
            : x2 > x1
            ? `M${x1},${y1} C${(x1 + x2) / 2},${y1} ${(x1 + x2) / 2},${y2} ${x2},${y2}`
            : `M${one.right - frame.left},${y1} C${one.right - frame.left + 26},${y1} ${two.right - frame.left + 26},${y2} ${two.right - frame.left},${y2}`;
          const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
          path.setAttribute("d", d);
          path.setAttribute("stroke-width", Math.min(7, 1 + Math.log10(count) * 1.5));
          if (focus) path.setAttribute("class", "chosen");
          paths.push(path);
        }
      }
      // Paper has another width: the picture is stretched to it.
      byId("edges").setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
      byId("edges").replaceChildren(...paths);
    };
    const listed = (title, nodes) => {
      if (!nodes.length) return [];
      const items = nodes.slice(0, 24).map((node) => made("li", {}, made("button", { type: "button", onclick: () => choose(node) }, names[node])));
      if (nodes.length > 24) items.push(made("li", {}, `and ${counted(nodes.length - 24)} more`));
      return [made("h4", {}, `${title} (${counted(nodes.length)})`), made("ul", {}, ...items)];
    };
    const describe = () => {
      const box = byId("picked");
      if (chosen === null) return box.replaceChildren();
      const outcome = came[chosen] ? `${came[chosen]} in this run; ` : "";
      const above = reached(chosen, sources).size;
      const below = reached(chosen, users).size;
      return box.replaceChildren(
        made("h3", {}, names[chosen]),
        made("p", {}, `${outcome}made from ${above ? counted(above) : "nothing else"}, used by ${below ? counted(below) : "nothing"}, directly or not`),
        ...listed("made from", sources[chosen]),
        ...listed("used by", users[chosen]),
      );
    };
    let current = null;
    const render = (focused = null) => {
      const focus = related();
      current = focus;
      visible = new Map();
      const parts = columns.map((title) => made("div", {}, made("h3", {}, title)));
      groups.forEach((group, place) => parts[group[0]].append(groupBox(group, place, focus)));
      const filled = parts.filter((part) => part.childElementCount > 1);
      boxes.style.setProperty("--columns", filled.length);
      boxes.replaceChildren(...filled);
      drawEdges(focus);
      describe();
      byId("matches").textContent = chosen !== null ? `chosen: ${names[chosen]}` : query ? `${counted(focus.size)} of ${counted(names.length)} found` : `${counted(names.length)} in all`;
      if (focused) boxes.querySelector(`[data-key="${focused}"]`)?.focus();
    };
    boxes.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      const all = [...boxes.querySelectorAll("button")];
      all[all.indexOf(document.activeElement) + step]?.focus();
      event.preventDefault();
    });
    byId("graph").addEventListener("keydown", (event) => {
      if (event.key === "Escape") byId("clear").click();
    });
    search.addEventListener("input", () => {
      query = search.value.trim().toLowerCase();
      chosen = null;
      limits.clear();
      render();
    });
    search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") boxes.querySelector("li button")?.click();
    });
    byId("clear").onclick = () => {
      query = search.value = "";
      opened.clear();
      choose(null);
      search.focus();
    };
    picture.hidden = byId("graph-tools").hidden = false;
    new ResizeObserver(() => drawEdges(current)).observe(boxes);
    render();
  };

  // What is wider than its place must be scrolled by those, too, who have no mouse.
  const scrolled = (box) => {
    if (box.scrollWidth <= box.clientWidth) {
      for (const name of ["tabindex", "role", "aria-labelledby"]) box.removeAttribute(name);
      return;
    }
    box.setAttribute("tabindex", "0");
    box.setAttribute("role", "region");
    box.setAttribute("aria-labelledby", box.closest("section").getAttribute("aria-labelledby"));
  };

  timeline();
  graph();
  const sizes = new ResizeObserver((seen) => seen.forEach((one) => scrolled(one.target)));
  document.querySelectorAll(".wide").forEach((box) => sizes.observe(box));
  addEventListener("beforeprint", () => document.querySelectorAll("section > details").forEach((one) => { one.open = true; }));
})();
