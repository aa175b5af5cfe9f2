// The time, for what changes with it alone.
import { useEffect, useState } from "react";

const EVERY_MS = 5000;

/** Unix time, looked at again every few seconds. */
export function useNow(): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return now;
}
