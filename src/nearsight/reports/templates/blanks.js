
// Commands with a blank: what a reader types is filled in, and all filled commands are gathered at the end.
const blanks = [...document.querySelectorAll("[data-blank]")].map((field) => {
  const command = field.closest("section").querySelector("pre");
  return { field, command, text: command.textContent.trim() };
});
const gathered = document.createElement("section");
gathered.innerHTML = "<h2>Filled in</h2><p class='lead'>Copy these lines into a terminal.</p><pre></pre>";
gathered.hidden = true;
document.querySelector("main").append(gathered);

function quoted(value) {
  // Words in double quotes are the same for every shell; anything else needs the quotes of a POSIX shell.
  return /^[\p{L}\p{N} .,_-]+$/u.test(value) ? `"${value}"` : `'${value.replaceAll("'", "'\\''")}'`;
}

document.addEventListener("input", () => {
  const lines = [];
  for (const { field, command, text } of blanks) {
    const value = field.value.trim();
    const filled = value ? text.replace(`"${field.dataset.blank}"`, () => quoted(value)) : text;
    command.textContent = filled;
    if (value) lines.push(filled);
  }
  gathered.hidden = !lines.length;
  gathered.querySelector("pre").textContent = lines.join("\n");
});
