// Other versions of this site, if there are any: `versions.json` beside its folder is a list such as
// [{"version": "0.1.0", "path": "0.1.0"}, ...], with paths relative to itself.
document.addEventListener("DOMContentLoaded", async () => {
  const box = document.querySelector(".versions");
  if (!box || location.protocol === "file:") return;
  const root = new URL(box.dataset.root || "./", location.href);
  let versions;
  try {
    const answer = await fetch(new URL("../versions.json", root));
    if (!answer.ok) return;
    versions = await answer.json();
  } catch {
    return;
  }
  if (versions.length < 2) return;
  const select = box.querySelector("select");
  for (const { version, path } of versions) {
    const option = new Option(version, new URL(`../${path}/index.html`, root));
    option.selected = version === box.dataset.version;
    select.add(option);
  }
  select.addEventListener("change", () => (location.href = select.value));
  box.hidden = false;
});
