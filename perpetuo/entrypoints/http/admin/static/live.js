// Keeps the overview fresh: the gateway tells what has changed, and is asked every few seconds where it does not.
// Without JavaScript the page has a link for it.
"use strict";
const ASK_EVERY = 5000, RECONNECT_AFTER = 2000, SILENT = 15000, LOST_AFTER = 3000, STREAM_AGAIN = 5000, STREAM_AGAIN_MOST = 60000;
const told = document.getElementById("live");
const waiting = new Map();  // sections that somebody is busy with, as they should be
const shown = new Map();
let source = null, heard = 0, asking = null, again = null, lost = null, pause = STREAM_AGAIN;

function say(text, tone) {
  clearTimeout(lost);
  lost = null;
  if (told.textContent === text) return;  // heard once, not every two seconds
  told.textContent = text;
  told.className = tone;
}

function lostSoon() {
  lost ??= setTimeout(() => say("Connection lost, retrying", "lost"), LOST_AFTER);
}

// --- what is shown ---

function busy(section) {
  const chosen = document.getSelection();
  return section.querySelector("details[open] form") || section.contains(document.activeElement)
    || (chosen && !chosen.isCollapsed && section.contains(chosen.anchorNode));
}

function put(fresh) {
  const old = document.getElementById(fresh.id);
  if (!old) return true;
  if (busy(old)) return false;
  const open = [...old.querySelectorAll("details")].map((one) => one.open);
  fresh.querySelectorAll("details").forEach((one, index) => { one.open = open[index] ?? false; });
  old.replaceWith(fresh);
  if (fresh.id === "activity") document.dispatchEvent(new Event("refreshed"));
  return true;
}

function show(sections, title) {
  if (title) document.title = `${title.trim()} · Perpetuo`;
  for (const fresh of sections) {
    if (shown.get(fresh.id) === fresh.outerHTML) continue;
    shown.set(fresh.id, fresh.outerHTML);
    waiting.set(fresh.id, fresh);
  }
  for (const [id, fresh] of waiting) if (put(fresh)) waiting.delete(id);
}

function elements(text) {
  return [...new DOMParser().parseFromString(text, "text/html").querySelectorAll("[data-live]")];
}

// --- the stream ---

async function listen() {
  stop();
  if (document.hidden) return;
  const line = source = new AbortController();
  heard = Date.now();
  try {
    // not an EventSource: that can't tell a session that has ended from a worker that has
    const span = new URLSearchParams(location.search).get("span") || "1h";
    const answer = await fetch(`/admin/live?span=${encodeURIComponent(span)}`, { signal: line.signal, redirect: "manual" });
    if (answer.type === "opaqueredirect") return void location.reload();  // to the sign-in page
    if (!answer.ok) return askInstead(answer.status === 503 ? await answer.text() : "");
    await hear(answer.body.pipeThrough(new TextDecoderStream()).getReader());
  } catch {
    // lost, or left by ourselves
  }
  if (source !== line) return;
  lostSoon();
  again = setTimeout(listen, RECONNECT_AFTER);
}

async function hear(reader) {
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      try {
        obey(/^event: (.*)$/m.exec(event)?.[1], /^data: (.*)$/m.exec(event)?.[1]);
      } catch (error) {
        reportError(error);  // a defect of this script is no lost connection
      }
    }
  }
}

function obey(name, data) {
  if (name === "overview") {
    const { title, ...sections } = JSON.parse(data);
    alive();
    show(elements(Object.values(sections).join("")), title);
  } else if (name === "beat") alive();
  else if (name === "end" && data === "again") listen();
  else if (name === "end" && data === "session") location.reload();
  else if (name === "end" && data === "broken") askInstead("");
}

function alive() {
  heard = Date.now();
  pause = STREAM_AGAIN;
  clearInterval(asking);
  asking = null;
  told.title = "";
  say("Live", "on");
}

function stop() {
  const line = source;
  source = null;
  line?.abort();
  clearTimeout(again);
}

// --- asking ---

function askInstead(why) {
  stop();
  told.title = why;
  asking ??= setInterval(ask, ASK_EVERY);
  ask();
  again = setTimeout(listen, pause);
  pause = Math.min(pause * 2, STREAM_AGAIN_MOST);
}

async function ask() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected) {  // the session has ended
      location.href = answer.url;
      return;
    }
    if (!answer.ok) return lostSoon();
    const text = await answer.text();
    if (!source) say("Refreshed every 5 seconds", "slow");
    show(elements(text), new DOMParser().parseFromString(text, "text/html").title.replace(/ · Perpetuo$/, ""));
  } catch {
    lostSoon();
  }
}

setInterval(() => {
  if (source && Date.now() - heard > SILENT) {
    lostSoon();
    listen();
  }
}, ASK_EVERY);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stop();
  else listen();
});
addEventListener("pagehide", stop);
addEventListener("pageshow", (event) => { if (event.persisted) listen(); });

listen();
