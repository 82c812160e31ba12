// Reads this very address again and exchanges the live part: filters, scrolling, focus stay.
"use strict";
const EVERY_MS = 5000;
const pulse = document.getElementById("pulse");

function isBusy() {
  const selection = getSelection();
  return document.hidden || (selection && !selection.isCollapsed);
}

function exchange(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("live");
  const live = document.getElementById("live");
  if (!fresh) return;
  const focused = live.contains(document.activeElement) ? document.activeElement : null;
  const places = [...live.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
  const again = focused && focused.getAttribute("href");
  const region = focused && focused.getAttribute("aria-label");
  live.replaceChildren(...fresh.childNodes);
  live.querySelectorAll(".scroll").forEach((box, place) => { box.scrollLeft = places[place] || 0; });
  if (again) live.querySelector(`a[href="${CSS.escape(again)}"]`)?.focus({ preventScroll: true });
  else if (region) live.querySelector(`[aria-label="${CSS.escape(region)}"]`)?.focus({ preventScroll: true });
}

async function refresh() {
  if (!isBusy()) {
    try {
      const response = await fetch(location.href, { credentials: "same-origin" });
      if (response.status === 401) { location.reload(); return; }
      if (!response.ok) throw new Error(String(response.status));
      exchange(await response.text());
      pulse.textContent = "live";
    } catch {
      pulse.textContent = "not connected; trying again";
    }
  }
  setTimeout(refresh, EVERY_MS);
}
setTimeout(refresh, EVERY_MS);
