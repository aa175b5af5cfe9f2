// Which key press sends: Enter, but never the Enter that picks a word from a Chinese input method.
import type { KeyboardEvent } from "react";

/** `keyCode` of every key press that an input method swallows. Safari ends the composition before the key press, so
 * `isComposing` is false there already and this number is the only sign left. */
const IME_KEY_CODE = 229;

export function isSendKey(event: KeyboardEvent): boolean {
  const { isComposing, keyCode } = event.nativeEvent;
  return event.key === "Enter" && !event.shiftKey && !isComposing && keyCode !== IME_KEY_CODE;
}

export function sendOnEnter(event: KeyboardEvent<HTMLTextAreaElement>): void {
  if (!isSendKey(event)) return;
  event.preventDefault();
  event.currentTarget.form?.requestSubmit();
}
