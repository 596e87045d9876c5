(() => {
  "use strict";
  const bar = document.getElementById("bar"), head = document.getElementById("head");
  const report = document.getElementById("report");
  const key = node => node.getAttribute("aria-labelledby") || node.localName;
  // What each part of the report was made from, before a script touched it.
  const source = new Map([...report.children].map(node => [node, node.outerHTML]));
  let digest = report.dataset.digest, ahead = 0;
  const shown = { bar: "", head: "" };

  function age(seconds) {
    if (seconds < 2) return "just now";
    if (seconds < 60) return `${Math.floor(seconds)} s ago`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
    return `${Math.floor(seconds / 86400)} d ago`;
  }

  function tellAges() {
    for (const time of document.querySelectorAll("time[data-at]")) {
      const text = age(Math.max(0, Date.now() / 1000 + ahead - Number(time.dataset.at)));
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // Change something above or in what is read, and leave what is read where it is in the window.
  function keepPlace(change) {
    const edge = bar.getBoundingClientRect().bottom + 8;
    const find = id => (id ? document.getElementById(id) : report.querySelector(":scope > header"));
    let mark = null;
    for (const node of report.querySelectorAll(":scope > header, h2[id], figure[id]")) {
      if (!node.getClientRects().length) continue; // folded away
      const top = node.getBoundingClientRect().top;
      const next = { id: node.id, top };
      if (top > edge) {
        // A heading in the window is a better mark than one above it; far down it is not what is read.
        if (mark && top < window.innerHeight * 0.6) mark = next;
        break;
      }
      mark = next;
    }
    change();
    const node = mark && find(mark.id);
    if (node) window.scrollBy(0, node.getBoundingClientRect().top - mark.top);
  }

  // What somebody opened, moved, sorted or sought in a part of the report.
  function kept(node) {
    const sorted = node.querySelector(".sortable th[aria-sort]"), sought = node.querySelector(".filter input");
    return {
      folds: new Map([...node.querySelectorAll("details")].map(one => [one.firstElementChild.textContent, one.open])),
      places: [...node.querySelectorAll(".scroll")].map(one => [one.scrollLeft, one.scrollTop]),
      sorted: sorted && [sorted.textContent, sorted.getAttribute("aria-sort")],
      sought: sought && sought.value,
      focused: sought !== null && sought === document.activeElement && [sought.selectionStart, sought.selectionEnd],
    };
  }

  function restore(node, before) {
    for (const one of node.querySelectorAll("details")) {
      const open = before.folds.get(one.firstElementChild.textContent);
      if (open !== undefined) one.open = open;
    }
    if (before.sorted) {
      const [name, direction] = before.sorted;
      const cell = [...node.querySelectorAll(".sortable th")].find(one => one.textContent === name);
      for (let i = 0; i < 2 && cell && cell.getAttribute("aria-sort") !== direction; i++) cell.querySelector("button").click();
    }
    const input = node.querySelector(".filter input");
    if (input && before.sought) {
      input.value = before.sought;
      input.dispatchEvent(new Event("input"));
    }
    if (input && before.focused) {
      input.focus({ preventScroll: true });
      input.setSelectionRange(...before.focused);
    }
    node.querySelectorAll(".scroll").forEach((one, i) => {
      if (before.places[i]) [one.scrollLeft, one.scrollTop] = before.places[i];
    });
  }

  // Put in the parts that are new and leave the others alone, so that nothing flickers.
  function merge(html) {
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    const old = new Map([...report.children].map(node => [key(node), node])), wanted = [], replaced = [];
    for (const node of [...fresh.content.children]) {
      const before = old.get(key(node)), text = node.outerHTML;
      if (before && source.get(before) === text) {
        wanted.push(before);
        continue;
      }
      source.set(node, text);
      wanted.push(node);
      replaced.push([node, before && kept(before)]);
    }
    for (const node of [...report.children]) {
      if (!wanted.includes(node)) {
        source.delete(node);
        node.remove();
      }
    }
    wanted.forEach((node, i) => {
      if (report.children[i] !== node) report.insertBefore(node, report.children[i] || null);
    });
    for (const [node, before] of replaced) {
      node.dispatchEvent(new CustomEvent("replaced", { bubbles: true }));
      if (before) restore(node, before);
    }
  }

  async function get(what) {
    const answer = await fetch(what, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    return answer;
  }

  async function update() {
    try {
      const state = await (await get("state")).json();
      const html = state.report === digest ? null : await (await get("report")).text();
      ahead = state.now - Date.now() / 1000;
      keepPlace(() => {
        for (const [name, part] of [["bar", bar], ["head", head]]) {
          if (state[name] !== shown[name]) part.innerHTML = shown[name] = state[name];
        }
        tellAges();
        if (html !== null) merge(html);
      });
      digest = state.report;
      document.title = state.title;
      document.documentElement.classList.remove("is-gone");
    } catch {
      document.documentElement.classList.add("is-gone");
    }
    setTimeout(update, document.hidden ? 10000 : 2000);
  }

  tellAges();
  setInterval(tellAges, 1000);
  setTimeout(update, 500);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) tellAges(); });
})();
