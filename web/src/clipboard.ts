// Copying, also where the browser withholds its clipboard: plain http on any address but localhost.
async function copyBySelection(text: string): Promise<void> {
  const area = document.createElement("textarea");
  area.value = text;
  area.style.position = "fixed";
  area.style.opacity = "0";
  // Outside of an open dialog nothing can be selected.
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("copying was refused");
}

/** Gives every caller of `navigator.clipboard.writeText`, libraries too, something that works. */
export function setUpClipboard(): void {
  if (navigator.clipboard) return;
  Object.defineProperty(navigator, "clipboard", { value: { writeText: copyBySelection }, configurable: true });
}
