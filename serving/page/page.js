// The page of the demo: searches, clicks, and asks /v1/rank as a search service would.

const NAMES = {
  position: "The search's own place",
  similarity: "Like what you do in this visit",
  clicked: "Like what you opened in two weeks",
  long_clicked: "Like what you stayed with",
  skipped: "Like what you passed over",
  wishlisted: "Like what you saved",
  inquired: "Like what you asked about",
  booked: "Like what you booked",
  last_long_click: "Like the last you stayed with",
  user_type: "What visitors like you choose",
  recency: "Opened recently",
  recency_outside: "Opened before this search",
  frequency: "Opened often",
  distance: "Near what you opened last",
  price: "Priced like what you opened",
  caller_score: "The search's own score",
};
const DEADLINE_MS = 8000; // the page would rather wait than show an old order
const KEPT_TIMES = 24;

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const price = new Intl.NumberFormat("en", { style: "currency", currency: "EUR", maximumFractionDigits: 0 });

let visit = newVisit();
let search = null; // {search_id, market, candidates by id}
let places = new Map(); // listing -> position in the ranking before

function newVisit() {
  const user = `visitor-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  return { user, opened: new Set(), saved: new Set(), listings: new Map(), last: null, times: [] };
}

async function call(path, body) {
  const answer = await fetch(path, body && { method: "POST", body: JSON.stringify(body) });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.detail || said.title);
  return said;
}

/** Put an event on the topic; where it came to stand is what the next ranking must include. */
async function tell(event) {
  visit.last = await call("/page/events", { ...event, user_id: visit.user, market: search.market });
}

async function rank() {
  return call("/v1/rank", {
    user_id: visit.user,
    candidates: [...search.candidates.values()].map(({ listing_id, score }) => ({ listing_id, score })),
    explain: true,
    deadline_ms: DEADLINE_MS,
    ...(visit.last && { min_offset: visit.last.offset, partition: visit.last.partition }),
  });
}

async function runSearch() {
  const market = $("market").value;
  const found = await call("/page/search", { market });
  // That it is in this market goes without saying.
  const named = (hit) => ({ ...hit, name: hit.name.replace(` in ${market}`, "") });
  const candidates = new Map(found.candidates.map((hit) => [hit.listing_id, named(hit)]));
  search = { search_id: found.search_id, market, candidates };
  places = new Map();
  const answer = await rank();
  show(answer);
  await tell({
    type: "search",
    search_id: search.search_id,
    query: market || "everywhere",
    results: answer.results.map(({ listing_id, position, caller_position }) => ({
      listing_id, position, caller_position,
      caller_score: candidates.get(listing_id).score,
      price: candidates.get(listing_id).price,
    })),
    ranking: { rank_id: answer.rank_id, bundle: answer.bundle },
  });
}

async function act(type, listing) {
  const begun = performance.now();
  await tell({ type, listing_id: listing, search_id: search.search_id });
  const answer = await rank();
  const hit = search.candidates.get(listing);
  (type === "click" ? visit.opened : visit.saved).add(listing);
  visit.listings.delete(listing); // the newest stands last
  visit.listings.set(listing, hit);
  const before = places.get(listing);
  show(answer, listing);
  // The frame that shows the new order has to be painted too.
  await new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)));
  showTime(performance.now() - begun);
  const now = places.get(listing);
  $("says").textContent = `Ranked anew. ${hit.name} is at place ${now}${before === now ? "" : `, before at ${before}`}.`;
}

function paint(element, hit) {
  element.style.setProperty("--hue", hit.hue);
  element.style.setProperty("--chroma", hit.chroma);
}

function show(answer, acted) {
  const list = $("results");
  const rows = new Map([...list.children].map((row) => [row.dataset.listing, row]));
  const tops = new Map([...rows].map(([listing, row]) => [listing, row.getBoundingClientRect().top]));
  const parts = relative(answer.results);
  const ordered = answer.results.map((result) => {
    const row = rows.get(result.listing_id) || newRow(search.candidates.get(result.listing_id));
    fillRow(row, result, parts.get(result.listing_id), result.listing_id === acted);
    return row;
  });
  const focused = document.activeElement;
  list.replaceChildren(...ordered);
  if (focused && list.contains(focused)) focused.focus({ preventScroll: true });
  move(ordered, tops);
  places = new Map(answer.results.map(({ listing_id, position }) => [listing_id, position]));
  showVisit();
  showAnswer(answer);
}

function newRow(hit) {
  const row = $("row").content.firstElementChild.cloneNode(true);
  row.dataset.listing = hit.listing_id;
  row.querySelector(".name").textContent = hit.name;
  row.querySelector(".about").textContent = hit.about.join(" · ");
  row.querySelector(".price").textContent = hit.price === undefined ? "" : price.format(hit.price);
  paint(row.querySelector(".swatch"), hit);
  row.querySelector(".open").addEventListener("click", () => attempt(() => act("click", hit.listing_id)));
  const save = row.querySelector(".save");
  save.setAttribute("aria-label", `Save ${hit.name}`);
  save.addEventListener("click", () => {
    if (!visit.saved.has(hit.listing_id)) attempt(() => act("wishlist", hit.listing_id));
  });
  return row;
}

function fillRow(row, result, parts, acted) {
  const before = places.get(result.listing_id);
  const up = before === undefined ? 0 : before - result.position;
  row.querySelector(".place").textContent = result.position;
  const moved = row.querySelector(".move");
  moved.className = `move ${up > 0 ? "up" : up < 0 ? "down" : ""}`;
  moved.textContent = up > 0 ? `▲ ${up}` : up < 0 ? `▼ ${-up}` : "";
  moved.setAttribute("aria-label", up ? `${up > 0 ? "up" : "down"} ${Math.abs(up)}` : "");
  row.classList.toggle("seen", visit.opened.has(result.listing_id));
  row.classList.toggle("just", acted);
  row.querySelector(".save").setAttribute("aria-pressed", visit.saved.has(result.listing_id));
  bars(row.querySelector(".why"), parts);
}

/** What sets each listing apart: its contributions less the list's median of each. */
function relative(results) {
  const explained = results.filter((result) => result.contributions);
  if (!explained.length) return new Map();
  const names = Object.keys(explained[0].contributions);
  const middle = Object.fromEntries(names.map((name) => {
    const values = explained.map((result) => result.contributions[name]).sort((a, b) => a - b);
    return [name, values[values.length >> 1]];
  }));
  const sides = explained.map((result) => {
    const parts = names.map((name, colour) => ({ name, colour, value: result.contributions[name] - middle[name] }));
    const side = (sign) => parts.reduce((sum, { value }) => sum + Math.max(0, sign * value), 0);
    return { listing: result.listing_id, parts, longest: Math.max(side(1), side(-1)) };
  });
  const scale = 50 / Math.max(1e-6, ...sides.map(({ longest }) => longest));
  return new Map(sides.map(({ listing, parts }) => [listing, { parts, scale }]));
}

function bars(element, drawn) {
  const parts = drawn ? drawn.parts.filter(({ value }) => Math.abs(value * drawn.scale) >= 0.5) : [];
  const kept = new Map([...element.children].map((bar) => [bar.dataset.name, bar]));
  let left = 50, right = 50;
  element.replaceChildren(...parts.map(({ name, colour, value }) => {
    const bar = kept.get(name) || document.createElement("i");
    const width = Math.abs(value * drawn.scale);
    bar.dataset.name = name;
    bar.style.background = `var(--c${colour % 8})`;
    bar.style.width = `${width}%`;
    bar.style.left = `${value > 0 ? right : left - width}%`;
    if (value > 0) right += width; else left -= width;
    return bar;
  }));
  const says = parts
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
    .map(({ name, value }) => `${NAMES[name] || name}: ${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`);
  element.title = says.join("\n");
  element.setAttribute("aria-label", says.length ? `Against the middle: ${says.join(", ")}` : "not ranked");
}

/** Let rows glide from where they were (first, last, invert, play). */
function move(rows, tops) {
  if (calm.matches) return;
  for (const row of rows) {
    const from = tops.get(row.dataset.listing);
    if (from === undefined) continue;
    const by = from - row.getBoundingClientRect().top;
    if (by) {
      row.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], {
        duration: 520, easing: "cubic-bezier(.2, .8, .2, 1)",
      });
    }
  }
}

function showVisit() {
  $("seen").replaceChildren(...[...visit.listings.values()].slice(-24).map((hit) => {
    const item = document.createElement("li");
    item.className = "swatch";
    item.title = hit.name;
    item.setAttribute("aria-label", hit.name);
    item.textContent = visit.saved.has(hit.listing_id) ? "♥" : "";
    paint(item, hit);
    return item;
  }));
}

function showAnswer(answer) {
  const says = {
    ranked: "Ranked for this visit.",
    "unknown-user": "The search's own order: nothing is known of this visitor.",
    "no-session": "The search's own order: no session is open.",
    "no-known-candidates": "The search's own order: the bundle knows none of these listings.",
    deadline: "The search's own order: the worker has not applied the click yet.",
  };
  $("outcome").textContent = says[answer.outcome] || `The search's own order (${answer.outcome}).`;
  const state = answer.state;
  const facts = {
    Outcome: answer.outcome,
    Ranked: `${answer.results.length} listings`,
    "State includes": state ? `clicks/${state.partition} @ ${state.offset}` : "nothing",
    "Age of the state": state ? duration(state.age_ms) : "–",
    "Waited and ranked": `${answer.took_ms.toFixed(1)} ms`,
    Bundle: answer.bundle.slice(0, 8) + (answer.stale ? " (stale vector)" : ""),
    Visitor: visit.user,
  };
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => {
    const term = document.createElement("dt"), description = document.createElement("dd");
    term.textContent = name;
    description.textContent = value;
    return [term, description];
  }));
  const explained = answer.results.find((result) => result.contributions);
  $("why").hidden = !explained;
  if (explained) {
    $("legend").replaceChildren(...Object.keys(explained.contributions).map((name, colour) => {
      const item = document.createElement("li"), key = document.createElement("i");
      key.style.background = `var(--c${colour % 8})`;
      item.append(key, NAMES[name] || name);
      return item;
    }));
  }
}

function showTime(took) {
  visit.times = [...visit.times, took].slice(-KEPT_TIMES);
  $("took").textContent = Math.round(took);
  $("took-unit").hidden = false;
  const sorted = [...visit.times].sort((a, b) => a - b);
  const n = visit.times.length;
  $("took-says").textContent =
    `${n === 1 ? "First click" : `Half of ${n} within ${Math.round(sorted[n >> 1])} ms`}: ` +
    "to Kafka, through the worker, into the sidecar, ranked and painted.";
  const top = Math.max(...visit.times), width = 240 / KEPT_TIMES;
  $("times").innerHTML = visit.times
    .map((time, at) => {
      const height = Math.max(2, (time / top) * 42);
      return `<rect x="${at * width}" y="${44 - height}" width="${width - 3}" height="${height}" rx="2"/>`;
    })
    .join("");
}

const duration = (ms) => (ms < 1000 ? `${ms} ms` : ms < 60000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60000)} min`);

let working = Promise.resolve();
/** One thing after the other, so that no answer overtakes a later one. */
function attempt(what) {
  working = working.then(what).then(
    () => { $("problem").hidden = true; },
    (error) => {
      $("problem").textContent = error.message;
      $("problem").hidden = false;
    },
  );
  return working;
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(runSearch);
});
$("leave").addEventListener("click", () => {
  visit = newVisit();
  $("took").textContent = "–";
  $("took-unit").hidden = true;
  $("times").replaceChildren();
  $("took-says").textContent = "A visitor nobody has seen: the list is the search's own again.";
  attempt(runSearch);
});

attempt(async () => {
  const markets = await call("/page/markets");
  $("market").replaceChildren(...markets.map(({ name, listings }) =>
    new Option(name ? `${name} (${listings})` : "everywhere", name)));
  await runSearch();
});
