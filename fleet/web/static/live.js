// SPDX-License-Identifier: Apache-2.0
// Fetch this page again every two seconds and put its main part in place, unless the reader is busy in it.
// The header tells the server that nobody has done anything: a session's idle end comes all the same.
"use strict";
(() => {
  const PERIOD_MS = 2000;
  const sign = document.getElementById("live");
  let shown = document.getElementById("main").innerHTML;

  const isTyping = () => ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement?.tagName);
  const isBusy = () => document.hidden || isTyping() || String(window.getSelection()) !== "";

  async function refresh() {
    if (isBusy()) return;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html", "x-strop-live": "1" }, cache: "no-store" });
      if (answer.redirected) { location.reload(); return; } // the session has ended
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("main").innerHTML;
      if (fresh !== shown && !isBusy()) replace(fresh);
      say("live", "");
    } catch {
      say("no answer", "lost");
    }
  }

  function replace(fresh) {
    const main = document.getElementById("main");
    const open = [...main.querySelectorAll("details")].map((one) => one.open);
    const focus = main.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    main.innerHTML = shown = fresh;
    main.querySelectorAll("details").forEach((one, i) => { one.open = Boolean(open[i]); });
    if (focus) main.querySelector(`[href="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
  }

  function say(text, kind) {
    if (sign.textContent !== text) sign.textContent = text;
    sign.className = `live ${kind}`;
  }

  (async function loop() {
    for (;;) {
      await new Promise((next) => setTimeout(next, PERIOD_MS));
      await refresh();
    }
  })();
})();
