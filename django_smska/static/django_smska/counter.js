// Under a message's text: how long it is and what it takes. The twin of segments.py: the browser
// tests hold the two against each other.
"use strict";

globalThis.smskaCount = (() => {
  const BASIC = new Set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
  );
  const EXTENSION = new Set("^{}\\[~]|€\f");
  const ROOM = {"GSM-7": [160, 153], "UCS-2": [70, 67]};

  function fill(widths, room) {
    let segments = 1, left = room;
    for (const width of widths) {
      if (width > left) {
        segments += 1;
        left = room;
      }
      left -= width;
    }
    return {segments, left};
  }

  return (text) => {
    const characters = Array.from(text);
    const foreign = characters.findIndex((one) => !BASIC.has(one) && !EXTENSION.has(one));
    const encoding = foreign < 0 ? "GSM-7" : "UCS-2";
    const widths = characters.map(
      (one) => foreign < 0 ? (EXTENSION.has(one) ? 2 : 1) : one.length
    );
    const units = widths.reduce((sum, width) => sum + width, 0);
    const [alone, each] = ROOM[encoding];
    const parts = units > alone
      ? fill(widths, each)
      : {segments: text ? 1 : 0, left: alone - units};
    return {characters: characters.length, encoding, units, ...parts, foreign};
  };
})();

document.addEventListener("DOMContentLoaded", () => {
  const VISIBLE = /[\p{L}\p{N}\p{P}\p{S}]/u;

  function named(character) {
    const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return VISIBLE.test(character) ? character : `U+${code}`;
  }

  function put(element, words, values) {
    const text = words.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
    if (element.textContent !== text) element.textContent = text; // or it would be read out again
  }

  function count(textarea) {
    const words = textarea.dataset;
    const box = document.createElement("div");
    const size = document.createElement("p");
    const price = document.createElement("p");
    box.className = "help smska-counter";
    size.id = `${textarea.id}_counter`;
    price.setAttribute("role", "status");
    box.append(size, price);
    (textarea.closest(".form-row") || textarea.parentElement).append(box);
    const described = textarea.getAttribute("aria-describedby");
    textarea.setAttribute("aria-describedby", described ? `${described} ${size.id}` : size.id);

    function show() {
      const text = textarea.value;
      const counted = globalThis.smskaCount(text);
      const first = Array.from(text)[counted.foreign];
      const character = counted.foreign < 0 ? "" : named(first);
      const values = {...counted, character, position: counted.foreign + 1};
      put(size, words.size, values);
      put(price, counted.foreign < 0 ? words.short : words.long, values);
    }

    textarea.addEventListener("input", show);
    window.addEventListener("pageshow", show); // by then it holds what the browser remembered
    show();
  }

  document.querySelectorAll("textarea[data-size][data-short][data-long]").forEach(count);
});
