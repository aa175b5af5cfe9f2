// Joins the conversation that is open, the server that keeps it, and the list that shows it.
import { useQueryClient } from "@tanstack/react-query";
import { useCallback } from "react";

import type { ChatSettings, ConversationStore } from "../chat/store";
import { usePlace } from "./address";
import { CONVERSATIONS } from "./Sidebar";
import { StoredChat } from "./store";

export interface StoredChatPlace {
  id: string | undefined;
  /** For the chat to be another one when the conversation is. */
  key: string;
  open: (id: string | undefined) => void;
  makeStore: (settings: ChatSettings) => ConversationStore;
}

export function useStoredChat(): StoredChatPlace {
  const { place, open, settle } = usePlace();
  const queries = useQueryClient();
  const { key, id, opened } = place;
  const makeStore = useCallback(
    (settings: ChatSettings) =>
      new StoredChat(settings, opened, {
        onBegun: settle,
        onChange: () => void queries.invalidateQueries({ queryKey: CONVERSATIONS }),
        onGone: () => open(undefined),
      }),
    [opened, settle, queries, open],
  );
  return { id, key, open, makeStore };
}
