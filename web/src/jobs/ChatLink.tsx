// To the chat, with a model that has just been trained.
import { useQueryClient } from "@tanstack/react-query";
import type { ReactNode } from "react";

import { chooseModel } from "../chat/chosen";

interface Props {
  model: string;
  className: string;
  label?: string;
  children: ReactNode;
}

export function ChatLink({ model, className, label, children }: Props) {
  const queries = useQueryClient();
  return (
    <a
      href="#/"
      aria-label={label}
      className={className}
      onClick={() => {
        chooseModel(model);
        void queries.invalidateQueries({ queryKey: ["models"] });
      }}
      data-testid="chat-with"
    >
      {children}
    </a>
  );
}
