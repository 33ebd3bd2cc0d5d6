// An export shows how far it is. Without this script the same links are ordinary downloads; so are large ones, which the
// browser writes to disk as they come.
"use strict";

const MOST_ROWS = 200000;
const words = new Intl.NumberFormat("en");

// filters put a new list, with new links, into the page
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-export]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  run(link, link.closest("section"));
});

// what is no list (a gateway that restarts, an error) is for the whole page
for (const name of ["htmx:responseError", "htmx:sendError"]) {
  document.addEventListener(name, (event) => location.assign(event.detail.pathInfo.finalRequestPath));
}

async function run(link, section) {
  const [line, bar, told, cancel] = ["p.progress", "progress", "output", "button"].map((s) => section.querySelector(s));
  if (!line.hidden && !line.dataset.done) return;
  const leaving = new AbortController();
  delete line.dataset.done;
  line.hidden = cancel.hidden = bar.hidden = false;
  bar.removeAttribute("value");
  told.textContent = "Asking …";
  cancel.onclick = () => leaving.abort();
  try {
    const answer = await fetch(link.href, { signal: leaving.signal, redirect: "manual" });
    if (answer.type === "opaqueredirect") return void location.reload();
    if (!answer.ok) throw new Error(new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main p")?.textContent || `The gateway answered ${answer.status}.`);
    const rows = Number(answer.headers.get("x-perpetuo-rows"));
    if (!rows && answer.headers.has("x-perpetuo-rows") === false || rows > MOST_ROWS) {
      leaving.abort();
      told.textContent = `${rows ? words.format(rows) + " rows" : "Many rows"}: your browser downloads them.`;
      bar.hidden = cancel.hidden = true;
      return void location.assign(link.href);
    }
    const pieces = [];
    let done = link.dataset.export === "csv" ? -1 : 0;
    for (const reader = answer.body.getReader(); ;) {
      const step = await reader.read();
      if (step.done) break;
      pieces.push(step.value);
      for (const byte of step.value) if (byte === 10) done += 1;
      if (rows) bar.max = rows, bar.value = Math.max(0, Math.min(done, rows));
      told.textContent = `${words.format(Math.max(0, done))} of ${words.format(rows)} rows`;
    }
    save(pieces, answer);
    told.textContent = `${words.format(Math.max(0, done))} rows are saved.`;
    bar.max = bar.value = 1;
  } catch (error) {
    told.textContent = error.name === "AbortError" ? "Cancelled; nothing was saved." : `Not exported: ${error.message}`;
    bar.hidden = true;
  } finally {
    cancel.hidden = true;
    line.dataset.done = "yes";
  }
}

function save(pieces, answer) {
  const address = URL.createObjectURL(new Blob(pieces, { type: answer.headers.get("content-type") }));
  const link = document.createElement("a");
  link.href = address;
  link.download = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") || "")?.[1] || "events";
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
