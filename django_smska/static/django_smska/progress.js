// On the page of a mailing: renew what changes while messages are on their way.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const EVERY_MS = 3000;
  const box = document.querySelector(".smska-progress[data-url]");
  const said = document.querySelector(".smska-said");
  const live = () => box.querySelector("[data-live]") !== null;

  async function renew() {
    if (document.hidden || box.contains(document.activeElement)) return; // a button keeps its focus
    const answer = await fetch(box.dataset.url, {credentials: "same-origin", redirect: "error"});
    if (!answer.ok) return;
    const new_ = await answer.text();
    if (box.contains(document.activeElement)) return;
    box.innerHTML = new_;
    if (!live() && said) said.textContent = box.querySelector("strong").textContent;
  }

  function wait() {
    if (!live()) return;
    setTimeout(() => renew().catch(() => {}).then(wait), EVERY_MS);
  }

  if (box) wait();
});
