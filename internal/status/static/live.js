// Keeps what is marked data-live as new as the server has it, by asking for the
// same page again. Without this script every page works, as of when it was loaded.
"use strict";

const state = document.getElementById("live");
const search = document.querySelector("form[data-search]");
let timer, asking, shown = location.href;

// refresh gets the page at url and puts its live parts in place of ours. A page
// that takes long is asked for less often: never more than a tenth of the time.
async function refresh(url) {
  clearTimeout(timer);
  asking?.abort();
  const mine = asking = new AbortController();
  const began = performance.now();
  let pause = 15000;
  try {
    const answer = await fetch(url, { signal: mine.signal, redirect: "manual", headers: { Accept: "text/html" } });
    if (answer.type === "opaqueredirect") return location.reload(); // the sign-in has ended
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(old.id);
      if (now && now.innerHTML !== old.innerHTML && !inUse(old)) replace(old, now, url === shown);
    }
    shown = url;
    state.replaceChildren(...fresh.getElementById("live").childNodes);
    document.title = fresh.title;
    pause = Math.max(2000, 10 * (performance.now() - began));
  } catch (trouble) {
    if (mine.signal.aborted) return;
    state.textContent = "Not up to date: the server does not answer";
  }
  if (mine === asking) timer = setTimeout(tick, pause);
}

// tick refreshes a page that somebody looks at.
function tick() {
  if (document.hidden) return;
  refresh(location.href);
}

// inUse tells a part in which somebody has chosen text or is about to press a
// button that asks twice.
function inUse(part) {
  const chosen = getSelection();
  return !chosen.isCollapsed && part.contains(chosen.anchorNode) || part.querySelector("details[open]") !== null;
}

// replace puts the new part in place of the old one and leaves the keyboard where
// it was. mark shows which rows were not there before.
function replace(old, now, mark) {
  const focus = old.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  const known = new Set(Array.from(old.querySelectorAll("li[id]"), row => row.id));
  old.replaceChildren(...now.childNodes);
  for (const row of old.querySelectorAll("li[id]")) row.classList.toggle("arrived", mark && !known.has(row.id));
  if (focus) Array.from(old.querySelectorAll("a, button, summary")).find(e => nameOf(e) === focus)?.focus({ preventScroll: true });
}

// nameOf tells what can be reached by the keyboard apart.
function nameOf(element) {
  return [element.closest("li")?.id, element.tagName, element.getAttribute("href"), element.textContent].join();
}

// Searching begins while somebody types.
search?.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => {
    history.replaceState(null, "", "?" + new URLSearchParams(new FormData(search)));
    refresh(location.href);
  }, 250);
});

document.addEventListener("keydown", event => {
  const field = document.querySelector("input[type=search]");
  if (event.key === "/" && field && document.activeElement.tagName !== "INPUT" && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    field.select();
  }
});

if (document.querySelector("[data-live]")) {
  document.addEventListener("visibilitychange", tick);
  timer = setTimeout(tick, 2000);
}
