// Under a message's text: how long it is, what it takes, what would make it cost less, and how a
// phone shows it. The twin of segments.py: the browser tests hold the two against each other.
"use strict";

globalThis.smska = (() => {
  const BASIC = new Set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
  );
  const EXTENSION = new Set("^{}\\[~]|€\f");
  const ROOM = {"GSM-7": [160, 153], "UCS-2": [70, 67]};
  const MOST_ODD = 5, MOST_FEWER = 10;

  const isForeign = (one) => !BASIC.has(one) && !EXTENSION.has(one);

  function fill(widths, room) {
    const starts = [0];
    let left = room;
    widths.forEach((width, index) => {
      if (width > left) {
        starts.push(index);
        left = room;
      }
      left -= width;
    });
    return {starts, left};
  }

  function measure(characters) {
    const foreign = characters.findIndex(isForeign);
    const encoding = foreign < 0 ? "GSM-7" : "UCS-2";
    const widths = characters.map(
      (one) => foreign < 0 ? (EXTENSION.has(one) ? 2 : 1) : one.length
    );
    const units = widths.reduce((sum, width) => sum + width, 0);
    const [alone, each] = ROOM[encoding];
    const filled = units > alone
      ? fill(widths, each)
      : {starts: characters.length ? [0] : [], left: alone - units};
    return {encoding, units, foreign, ...filled};
  }

  function count(text) {
    const characters = Array.from(text);
    const {starts, ...size} = measure(characters);
    return {characters: characters.length, segments: starts.length, ...size};
  }

  function parts(text) {
    const characters = Array.from(text);
    const {starts} = measure(characters);
    return starts.map((start, at) => characters.slice(start, starts[at + 1]).join(""));
  }

  function isOfOtherScript(one) {
    const latin = one.codePointAt(0) <= 0x24f || (one >= "\u1e00" && one <= "\u1eff");
    return /^\p{L}$/u.test(one) && !latin && isForeign(one);
  }

  function isLatin(characters) {
    const beside = (one) => /^[A-Za-z]$/.test(one ?? "");
    return !characters.some(
      (one, at) => isOfOtherScript(one) && !beside(characters[at - 1]) && !beside(characters[at + 1])
    );
  }

  function savings(text) {
    const characters = Array.from(text);
    const segments = measure(characters).starts.length;
    const foreign = [...new Set(characters.filter(isForeign))];
    const rest = characters.filter((one) => !foreign.includes(one));
    const few = foreign.length > 0 && foreign.length <= MOST_ODD
      && rest.some((one) => /[\p{L}\p{N}]/u.test(one));
    const odd = few && isLatin(characters) ? foreign : [];
    const without_odd = odd.length ? measure(rest).starts.length : segments;
    for (let fewer = 1; fewer <= MOST_FEWER && fewer < characters.length; fewer += 1) {
      const without_fewer = measure(characters.slice(0, -fewer)).starts.length;
      if (without_fewer < segments) return {odd, without_odd, fewer, without_fewer};
    }
    return {odd, without_odd, fewer: 0, without_fewer: segments};
  }

  return {count, parts, savings, isOfOtherScript};
})();

document.addEventListener("DOMContentLoaded", () => {
  const VISIBLE = /[\p{L}\p{N}\p{P}\p{S}]/u;

  function fill(words, values) {
    return words.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
  }

  function make(name, className, text = "") {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = text;
    return element;
  }

  function put(element, text) {
    if (element.textContent !== text) element.textContent = text; // or it would be read out again
  }

  function named(character, words) {
    const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    if (!VISIBLE.test(character)) return `U+${code}`;
    const seen = fill(words.named, {character});
    return globalThis.smska.isOfOtherScript(character) ? `${seen} (U+${code})` : seen;
  }

  // The twin of admin/text_words.py.
  function advice(text, segments, words) {
    const {odd, without_odd, fewer, without_fewer} = globalThis.smska.savings(text);
    const said = [];
    if (odd.length) {
      said.push(fill(words.odd, {characters: odd.map((one) => named(one, words)).join(", ")}));
    }
    if (without_odd < segments) said.push(fill(words.without, {less: without_odd, segments}));
    else if (fewer) {
      const shorter = words.fewer.split("\n")[fewer - 1];
      said.push(fill(shorter, {number: fewer, less: without_fewer, segments}));
    }
    return said;
  }

  function phone(words) {
    const box = make("div", "smska-phone");
    const sender = make("p", "smska-phone-sender");
    const bubble = make("p", "smska-phone-text");
    const joined = make("p", "smska-phone-note", words.joined);
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", words.phone);
    box.append(sender, bubble, joined);

    function show(text, from) {
      box.hidden = !text.trim();
      put(sender, from || words.sender);
      const pieces = globalThis.smska.parts(text).flatMap((part, index) => {
        if (index === 0) return [part];
        const mark = make("span", "smska-cut", String(index + 1));
        mark.setAttribute("role", "img");
        mark.setAttribute("aria-label", fill(words.mark, {number: index + 1}));
        return [mark, part];
      });
      bubble.replaceChildren(...pieces);
      joined.hidden = pieces.length < 2;
    }
    return {box, show};
  }

  function count(textarea) {
    const words = textarea.dataset;
    const box = make("div", "help smska-counter");
    const size = make("p", "");
    const price = make("p", "");
    const preview = phone(words);
    size.id = `${textarea.id}_counter`;
    price.setAttribute("role", "status");
    box.append(size, price, preview.box);
    (textarea.closest(".form-row") || textarea.parentElement).append(box);
    const described = textarea.getAttribute("aria-describedby");
    textarea.setAttribute("aria-describedby", described ? `${described} ${size.id}` : size.id);
    const sender = textarea.form?.elements.namedItem("sender");

    function show() {
      const text = textarea.value;
      const counted = globalThis.smska.count(text);
      put(size, text.trim() ? fill(words.size, counted) : words.empty);
      const said = [fill(words.segments, counted), ...advice(text, counted.segments, words)];
      put(price, text.trim() ? said.join(" ") : "");
      preview.show(text, sender?.value.trim());
    }

    textarea.addEventListener("input", show);
    sender?.addEventListener("input", show);
    window.addEventListener("pageshow", show); // by then it holds what the browser remembered
    show();
  }

  document.querySelectorAll("textarea[data-size][data-segments]").forEach(count);
});
