// The banner comes when the configuration file breaks, and goes when it is right again, while a page is open.
// Without JavaScript it is as old as the page. The overview is told in another way (live.js).
"use strict";
{
  const LOOK_EVERY = 10000;
  const place = document.getElementById("banner");
  const looking = setInterval(look, LOOK_EVERY);
  document.addEventListener("visibilitychange", look);

  async function look() {
    if (document.hidden) return;
    try {
      const answer = await fetch("/admin/banner", { redirect: "manual" });
      if (answer.type === "opaqueredirect") return void clearInterval(looking);  // the session has ended: the next click says so
      if (answer.ok) show(await answer.text());
    } catch {
      // the gateway is away; the next look may find it
    }
  }

  function show(text) {
    const fresh = document.createElement("template");
    fresh.innerHTML = text;
    if (fresh.innerHTML.trim() !== place.innerHTML.trim()) place.replaceChildren(fresh.content);  // heard once
  }
}
