// In a list: renew what changes while something in it is on its way. The same address is fetched,
// and the parts with a name are put in place of those that are shown.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const EVERY_MS = 4000;
  const RARELY_MS = 30000; // where nothing has changed for some time
  const FOR_MS = 30 * 60 * 1000;
  const begun = Date.now();
  const said = document.querySelector(".smska-said[data-done]");
  let pause = EVERY_MS;

  const parts = () => [...document.querySelectorAll("[data-part]")];
  const rowsOf = (list) => [...list.querySelectorAll("#result_list tbody tr")];
  const keysOf = (list) => rowsOf(list).map((row) => row.querySelector("a[href]")?.getAttribute("href")).join();

  function isUsed(part) {
    const chosen = getSelection();
    return part.contains(document.activeElement)
      || part.querySelector("input:checked, details[open], [aria-expanded=true]") !== null
      || [...part.querySelectorAll("select")].some((select) => select.selectedIndex > 0)
      || (!chosen.isCollapsed && chosen.containsNode(part, true));
  }

  const isBusy = () => document.hidden || parts().some(isUsed);

  // A row that stays keeps its box, which the script of the actions knows.
  function renewRow(row, fresh) {
    let changed = false;
    [...fresh.cells].forEach((cell, place) => {
      const old = row.cells[place];
      if (cell.querySelector("input") || old.innerHTML === cell.innerHTML) return;
      old.innerHTML = cell.innerHTML;
      changed = true;
    });
    return changed;
  }

  function renewList(list, fresh) {
    if (keysOf(list) === keysOf(fresh)) {
      const freshRows = rowsOf(fresh);
      return rowsOf(list).map((row, place) => renewRow(row, freshRows[place])).includes(true);
    }
    if (list.querySelector("#result_list:hover")) return false; // no row moves away from the mouse
    list.innerHTML = fresh.innerHTML;
    const boxes = list.querySelectorAll("tr input.action-select");
    const parent = list.closest(".result-list-wrapper") ?? document; // unfold's wants to know it
    if (boxes.length) window.Actions?.(boxes, {parent}); // as it does when a page is loaded
    return true;
  }

  // Returns whether a row has changed.
  function put(fresh) {
    let changed = false;
    for (const part of parts()) {
      const new_ = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
      if (part.dataset.part === "list") changed = renewList(part, new_);
      else if (part.innerHTML !== new_.innerHTML) part.innerHTML = new_.innerHTML;
    }
    return changed;
  }

  // Returns whether there is more to come.
  async function renew() {
    if (isBusy()) return true;
    const headers = {"X-Smska-Renew": "1"};
    const answer = await fetch(location.href, {headers, credentials: "same-origin", cache: "no-store", redirect: "error"});
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (isBusy()) return true;
    pause = put(fresh) ? EVERY_MS : Math.min(pause * 1.5, RARELY_MS);
    if (fresh.querySelector("[data-live]")) return true;
    said.textContent = said.dataset.done;
    return false;
  }

  function stop() {
    said.textContent = said.dataset.stopped;
  }

  function wait() {
    if (Date.now() - begun > FOR_MS) stop();
    else setTimeout(() => renew().then((more) => more && wait(), stop), pause);
  }

  // Grappelli's actions cannot be started again.
  const isOurs = window.Actions || !document.querySelector("tr input.action-select");
  if (said && document.querySelector("[data-live]") && isOurs) wait();
});
