// Keeps the overview fresh. Without JavaScript the page has a link for it.
"use strict";
const EVERY = 5000;

function busy() {
  const main = document.getElementById("main");
  return document.hidden || main.querySelector("details[open]") || main.contains(document.activeElement.closest("form, a, summary"));
}

async function refresh() {
  if (busy()) return;
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (answer.redirected) {  // the session has ended
    location.href = answer.url;
    return;
  }
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (busy()) return;
  document.getElementById("main").replaceChildren(...page.getElementById("main").childNodes);
  document.title = page.title;
  document.dispatchEvent(new Event("refreshed"));
}

setInterval(() => refresh().catch(() => {}), EVERY);
