"use strict";
// Enlarges images. Without this script, each image is a link to its original.
const DIALOG = `<dialog aria-label="Image"><p class="caption"></p><form method="dialog">
<button type="button" data-step="-1">Previous</button><button type="button" data-step="1">Next</button>
<a>Open the original</a><button>Close</button></form></dialog>`;
let large, shown, caption, original;
let thumbnails = [];
let current = 0;

function create() {
  document.body.insertAdjacentHTML("beforeend", DIALOG);
  large = document.body.lastElementChild;
  shown = new Image();
  large.prepend(shown);
  [caption, original] = [".caption", "a"].map((name) => large.querySelector(name));
  large.addEventListener("click", (event) => {
    const step = Number(event.target.dataset.step || 0);
    if (step) show(current + step);
    else if (event.target === large || event.target === shown) large.close();
  });
  large.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) show(current + step);
  });
}

function show(index) {
  current = (index + thumbnails.length) % thumbnails.length;
  const thumbnail = thumbnails[current];
  const card = thumbnail.closest("figure, li");
  const link = thumbnail.closest("a");
  const name = card.querySelector(".name");
  shown.src = thumbnail.currentSrc || thumbnail.src;
  shown.alt = thumbnail.alt;
  caption.textContent = `${name ? name.textContent : thumbnail.alt} (${current + 1} of ${thumbnails.length})`;
  original.hidden = !link;
  if (!link) return;
  original.href = link.href;
  if (!link.href.startsWith("file:")) return;
  // The original takes the thumbnail's place once it is there, unless the reader has moved on.
  const image = new Image();
  image.onload = () => { if (thumbnails[current] === thumbnail) shown.src = image.src; };
  image.src = link.href;
}

document.querySelector("main").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.button) return;
  const card = event.target.closest(".card, .sheet li");
  const thumbnail = card && card.querySelector("img");
  if (!thumbnail) return;
  event.preventDefault();
  if (!large) create();
  thumbnails = [...document.querySelectorAll(".card img, .sheet img")];
  show(thumbnails.indexOf(thumbnail));
  large.showModal();
});
// A link into a folded section opens it.
function unfold() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  const fold = target && (target.closest("details") || target.querySelector("details"));
  if (fold) fold.open = true;
}
addEventListener("hashchange", unfold);
unfold();
