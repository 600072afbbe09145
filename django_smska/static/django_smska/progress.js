// On the page of a mailing: renew what changes while messages are on their way.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const EVERY_MS = 3000, LONGEST_MS = 30000;
  const box = document.querySelector(".smska-progress[data-url]");
  const said = document.querySelector(".smska-said");
  let wait_ms = EVERY_MS;
  const live = () => box.querySelector("[data-live]") !== null;

  async function renew() {
    if (document.hidden || box.contains(document.activeElement)) return; // a button keeps its focus
    const answer = await fetch(box.dataset.url, {credentials: "same-origin", redirect: "error"});
    if (!answer.ok) return;
    const new_ = await answer.text();
    if (box.contains(document.activeElement)) return;
    const seen = box.textContent;
    box.innerHTML = new_;
    // While it waits for hours, nothing changes.
    wait_ms = box.textContent === seen ? Math.min(2 * wait_ms, LONGEST_MS) : EVERY_MS;
    if (!live() && said) said.textContent = box.querySelector("strong").textContent;
  }

  function wait() {
    if (!live()) return;
    setTimeout(() => renew().catch(() => {}).then(wait), wait_ms);
  }

  if (box) wait();
});
