// Who is signed in, for whatever the gate lets through.
import { createContext, useContext } from "react";

import { NO_ACCOUNTS, type Session } from "./api";

export interface SessionContext {
  session: Session;
  /** After signing in or out, or a change of oneself: what the server answered. */
  update: (session: Session) => void;
  /** Asks the server again, whose answer is given: the session may be over, or another one. */
  refresh: () => Promise<Session | undefined>;
}

export const Context = createContext<SessionContext>({
  session: NO_ACCOUNTS,
  update: () => undefined,
  refresh: () => Promise.resolve(undefined),
});

export function useSession(): SessionContext {
  return useContext(Context);
}
