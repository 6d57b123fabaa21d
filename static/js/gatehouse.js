// What a browser adds to pages that work without it.
const one = (selector) => document.querySelector(selector);
const lang = navigator.languages.find((own) => own.startsWith(document.documentElement.lang)) ?? "en";
const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const formats = {
  full: new Intl.DateTimeFormat(lang, { day: "2-digit", month: "short", year: "numeric", timeZoneName: "short", ...clock }),
  day: new Intl.DateTimeFormat(lang, { dateStyle: "long" }),
  clock: new Intl.DateTimeFormat(lang, { second: "2-digit", ...clock }),
};
const zoneOf = (date) => formats.full.formatToParts(date).find((part) => part.type === "timeZoneName").value;
const zone = zoneOf();

function localise(root) {
  for (const time of root.querySelectorAll("time[data-local]")) {
    const date = new Date(time.dateTime);
    time.textContent = formats[time.dataset.local].format(date);
    // The page names one zone for them all; before and after a change of the clocks there are two.
    if (time.dataset.local === "clock" && zoneOf(date) !== zone) time.textContent += ` ${zoneOf(date)}`;
  }
  for (const name of root.querySelectorAll("[data-zone]")) name.textContent = zone;
  root.querySelectorAll("[data-timeline]").forEach(regroup);
}

// The server groups by UTC days; near midnight the viewer's day is another one.
function regroup(list) {
  let last;
  list.querySelectorAll(".day").forEach((day) => day.remove());
  for (const entry of list.querySelectorAll(".entry")) {
    const day = formats.day.format(new Date(entry.querySelector("time").dateTime));
    if (day === last) continue;
    last = day;
    const head = document.createElement("li");
    head.className = "day";
    head.textContent = day === formats.day.format() ? "Today" : day;
    entry.before(head);
  }
}

// The server refuses an early resend; this spares the try.
const waiting = document.querySelectorAll("[data-wait]");
if (waiting.length) {
  const until = Date.now() + 1000 * waiting[0].dataset.wait;
  const tick = () => {
    const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
    waiting.forEach((button) => (button.disabled = left > 0));
    for (const count of document.querySelectorAll("[data-count]"))
      if (left) count.textContent = left === 1 ? "1 second" : `${left} seconds`;
      else count.parentElement.textContent = count.parentElement.dataset.then;
    if (left) setTimeout(tick, 1000);
  };
  tick();
}
// The ways out are shown when they are needed.
addEventListener("htmx:afterSettle", () => {
  if (one("#delivery.bad")) one("#f-channel").open = true;
});

// A form is sent once; the server does it once as well. It opens again when the browser comes back to the page, and after
// a while: a download, or a navigation that was stopped, leaves the page where it is and says nothing.
const sent = new Map();
function lock(form) {
  const buttons = [...form.elements].filter((each) => each.type === "submit" && !each.disabled);
  sent.set(form, { buttons, focus: document.activeElement, timer: setTimeout(() => unlock(form), 10000) });
  // The browser reads the pressed button after this event.
  setTimeout(() => sent.has(form) && buttons.forEach((button) => (button.disabled = true)));
}
function unlock(form) {
  const { buttons = [], focus, timer } = sent.get(form) ?? {};
  clearTimeout(timer);
  sent.delete(form);
  buttons.forEach((button) => (button.disabled = false));
  if (document.activeElement === document.body && buttons.includes(focus)) focus.focus();
}
addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (sent.has(event.target)) event.preventDefault();
  else lock(event.target);
});
addEventListener("pageshow", () => [...sent.keys()].forEach(unlock));
addEventListener("htmx:beforeRequest", ({ detail }) => detail.elt.matches("form[method=post]") && lock(detail.elt));
addEventListener("htmx:afterRequest", ({ detail }) => unlock(detail.elt));

// Single keys can be switched off (WCAG 2.1.4).
const help = one("#help");
if (help) {
  const toggle = one("[data-keys]");
  toggle.checked = localStorage.keys !== "off";
  toggle.onchange = () => (localStorage.keys = toggle.checked ? "on" : "off");
  const show = () => help.showModal();
  one("[data-help]").hidden = false;
  one("[data-help]").onclick = show;
  addEventListener("keydown", (event) => {
    if (!toggle.checked || event.ctrlKey || event.metaKey || event.altKey) return;
    // A moment after it was closed the focus may still be in the dialog.
    if (help.open || (event.target.closest("input, textarea, select") && !help.contains(event.target))) return;
    if (event.key === "/") one("[data-search]")?.focus();
    else if (event.key === "?") show();
    else return;
    event.preventDefault();
  });
}

// A live part speaks only when it has something new, and never turns the page into an error. Where an answer lacks
// the part asked for, it is another page; where that is the sign-in, what was typed stays, and the other tab is for it.
const answers = {};
addEventListener("htmx:beforeSwap", ({ detail }) => {
  const { elt } = detail.requestConfig;
  const part = detail.isError ? "#main" : elt.closest("[hx-select]").getAttribute("hx-select");
  const text = detail.serverResponse;
  const stale = elt.matches("[data-live]") && (detail.isError || answers[part] === text);
  answers[part] = text;
  if (!stale && text.includes(`id="${part.slice(1)}"`)) return;
  detail.shouldSwap = false;
  if (stale) return;
  const there = new URL(detail.xhr.responseURL);
  const signIn = one("#signed-out a");
  if (detail.isError) one("#failed").hidden = false;
  else if (detail.requestConfig.verb === "get" || signIn?.pathname !== there.pathname) location.assign(there);
  else {
    signIn.href = there;
    one("#signed-out").hidden = false;
  }
});
// The page's forms belong to the sign-in that ended: before the next try they get the token of the new one.
addEventListener("htmx:confirm", async (event) => {
  if (one("#signed-out")?.hidden !== false || event.detail.verb === "get") return;
  event.preventDefault();
  try {
    const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
    const token = page.querySelector("[name=csrf_token]").value;
    document.querySelectorAll("[name=csrf_token]").forEach((field) => (field.value = token));
    event.detail.issueRequest();
  } catch {
    one("#failed").hidden = false;
  }
});
addEventListener("htmx:sendError", ({ detail }) => (one("#failed").hidden = detail.elt.matches("[data-live]")));

// What takes longer than a moment is said.
let moment;
function working(is) {
  clearTimeout(moment);
  if (is) moment = setTimeout(() => (one("#working").hidden = false), 500);
  else one("#working").hidden = true;
}
addEventListener("htmx:beforeRequest", ({ detail }) => detail.elt.matches("[data-live]") || working(true));
addEventListener("htmx:afterRequest", ({ detail }) => detail.elt.matches("[data-live]") || working(false));

// htmx focuses the first faulty field, by `autofocus`. Otherwise the focus goes back to the trigger.
addEventListener("htmx:afterSettle", ({ detail }) => {
  if (document.activeElement !== document.body || detail.requestConfig?.elt.matches("[data-live]")) return;
  one(`#${detail.target.id} [data-return]`)?.focus();
});

addEventListener("htmx:load", ({ detail }) => localise(detail.elt));
