// Pause, resume, flush and drain. The token stays in the field: nothing of it is stored.

import { find, show, text } from "./dom.js";

const WORDS = { pause: "Pausing", resume: "Resuming", flush: "Flushing", drain: "Draining" };

async function tell(action) {
  const token = find("token").value.trim();
  if (!token) {
    text("control-answer", "Give the token first.");
    find("token").focus();
    return;
  }
  text("control-answer", `${WORDS[action]} …`);
  try {
    const answer = await fetch(`control/${action}`, { method: "POST", headers: { Authorization: `Bearer ${token}` }, credentials: "omit", cache: "no-store" });
    text("control-answer", (await answer.text()).trim());
  } catch {
    text("control-answer", "It did not answer: is it still running?");
  }
}

export function begin(about) {
  show("control", about.control);
  if (!about.control || find("control").dataset.ready) return;
  find("control").dataset.ready = "yes";
  find("control-form").addEventListener("submit", (event) => event.preventDefault());
  for (const button of find("control-form").querySelectorAll("button")) {
    button.addEventListener("click", () => (button.dataset.action === "drain" ? find("sure").showModal() : tell(button.dataset.action)));
  }
  find("sure-no").addEventListener("click", () => find("sure").close());
  find("sure-yes").addEventListener("click", () => {
    find("sure").close();
    tell("drain");
  });
}
