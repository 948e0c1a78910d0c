// What the page does beside htmx: it opens the dialog, and says what no answer of the page says.
"use strict";

const FAILURES_MAX = 60; // so many looks in a row that fail, and the page looks no more

const away = "The wallet does not answer just now. Trying again is safe: nothing is sent twice.";
const refused = "This could not be done. Load the page again, and look at your entries.";
let failures = 0;

function say(text) {
  const notice = document.querySelector("dialog[open] .notice") || document.querySelector("#notice");
  if (notice && notice.textContent !== text) notice.textContent = text;
}

function sayNothing() {
  for (const notice of document.querySelectorAll(".notice")) if (notice.textContent) notice.textContent = "";
}

function failed(event, text) {
  say(text);
  const watching = event.target.closest("article.pending");
  if (!watching || event.detail.requestConfig?.verb !== "get") return;
  failures += 1;
  if (failures < FAILURES_MAX) return;
  watching.removeAttribute("hx-trigger");
  htmx.process(watching);
}

document.addEventListener("htmx:load", (event) => {
  const dialog = event.detail.elt.querySelector("dialog");
  if (!dialog || dialog.open) return;
  dialog.addEventListener("close", () => {
    document.querySelector("#review")?.focus();
    dialog.remove();
  });
  dialog.showModal();
});

// Whoever mends a field is not told of it any more.
document.addEventListener("input", ({ target }) => {
  const wrong = document.getElementById(`${target.id}-error`);
  if (!wrong || !target.form?.matches("#transfer-form")) return;
  wrong.remove();
  target.removeAttribute("aria-invalid");
  target.setAttribute("aria-describedby", `${target.id}-hint`);
});

// What is no page is an error of the servers behind it, or in front: the page stays as it is.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  if ((xhr.getResponseHeader("content-type") || "").startsWith("text/html")) {
    failures = 0;
    sayNothing();
  } else if (xhr.status >= 400) {
    event.detail.shouldSwap = false;
    failed(event, xhr.status >= 500 ? away : refused);
  } else if (xhr.status === 204) {
    failures = 0;
  }
});
document.addEventListener("htmx:sendError", (event) => failed(event, away));
document.addEventListener("htmx:timeout", (event) => failed(event, away));
