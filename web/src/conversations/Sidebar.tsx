// One's conversations beside the chat: open, rename, delete, begin a new one.
import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { Check, LoaderCircle, Pencil, SquarePen, Trash2, X } from "lucide-react";
import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";

import { Failure } from "../account/Failure";
import { isSendKey } from "../chat/sendKey";
import { Dialog } from "../ui/Dialog";
import { IconButton } from "../ui/IconButton";
import { type Conversation, deleteConversation, listConversations, renameConversation } from "./api";

export const CONVERSATIONS = ["conversations"];
/** How often the list is asked while something in it is being written: it does not say so by itself. */
const LOOK_AGAIN_MS = 3000;

interface Props {
  /** The conversation that is open. */
  current: string | undefined;
  onOpen: (id: string | undefined) => void;
  /** On a narrow screen: whether it lies over the chat. */
  shown: boolean;
  onHide: () => void;
}

export function Sidebar({ current, onOpen, shown, onHide }: Props) {
  const { t } = useTranslation();
  const listed = useInfiniteQuery({
    queryKey: CONVERSATIONS,
    queryFn: ({ pageParam, signal }) => listConversations(pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => (page.has_more ? (page.last_id ?? undefined) : undefined),
    refetchInterval: ({ state }) =>
      state.data?.pages.some(({ data }) => data.some(({ generating }) => generating)) ? LOOK_AGAIN_MS : false,
  });
  const [leaving, setLeaving] = useState<Conversation | undefined>();
  const conversations = listed.data?.pages.flatMap(({ data }) => data) ?? [];

  useEffect(() => {
    if (!shown) return undefined;
    const onKey = (event: globalThis.KeyboardEvent): void => {
      if (event.key === "Escape") onHide();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [shown, onHide]);

  function open(id: string | undefined): void {
    onHide();
    onOpen(id);
  }

  return (
    <>
      {shown && <button type="button" className="scrim" aria-label={t("conversations.hide")} onClick={onHide} />}
      <nav
        aria-label={t("conversations.label")}
        className={`sidebar ${shown ? "" : "max-md:hidden"}`}
        data-testid="conversations"
      >
        <button type="button" className="nav-link w-full" onClick={() => open(undefined)} data-testid="begin-conversation">
          <SquarePen aria-hidden className="size-5 shrink-0" />
          {t("conversations.new")}
        </button>
        <ul className="mt-2 min-h-0 grow overflow-y-auto">
          {conversations.map((conversation) => (
            <Row
              key={conversation.id}
              conversation={conversation}
              isCurrent={conversation.id === current}
              onOpen={() => open(conversation.id)}
              onDelete={() => setLeaving(conversation)}
            />
          ))}
        </ul>
        {listed.hasNextPage && (
          <button
            type="button"
            className="nav-link w-full text-sm"
            aria-busy={listed.isFetchingNextPage}
            onClick={() => void listed.fetchNextPage()}
            data-testid="more-conversations"
          >
            {t("conversations.more")}
          </button>
        )}
        <Failure error={listed.error} />
      </nav>
      <DeleteDialog
        conversation={leaving}
        onClose={() => setLeaving(undefined)}
        onDeleted={(id) => {
          if (id === current) onOpen(undefined);
        }}
      />
    </>
  );
}

interface RowProps {
  conversation: Conversation;
  isCurrent: boolean;
  onOpen: () => void;
  onDelete: () => void;
}

function Row({ conversation, isCurrent, onOpen, onDelete }: RowProps) {
  const { t } = useTranslation();
  const [renaming, setRenaming] = useState(false);
  const title = conversation.title || t("conversations.untitled");
  if (renaming) return <Renaming conversation={conversation} onDone={() => setRenaming(false)} />;
  return (
    <li className="conversation group" data-testid="conversation" data-current={isCurrent}>
      <button
        type="button"
        className="conversation-title"
        aria-current={isCurrent ? "page" : undefined}
        title={title}
        onClick={onOpen}
        data-testid="open-conversation"
      >
        <span className="truncate">{title}</span>
        {conversation.generating && (
          <span className="shrink-0" data-testid="generating">
            <LoaderCircle aria-hidden className="size-4 animate-spin" />
            <span className="sr-only">{t("conversations.generating")}</span>
          </span>
        )}
      </button>
      <IconButton small label={t("conversations.rename", { title })} onClick={() => setRenaming(true)} data-testid="rename">
        <Pencil aria-hidden className="size-4" />
      </IconButton>
      <IconButton small label={t("conversations.delete", { title })} onClick={onDelete} data-testid="delete">
        <Trash2 aria-hidden className="size-4" />
      </IconButton>
    </li>
  );
}

function Renaming({ conversation, onDone }: { conversation: Conversation; onDone: () => void }) {
  const { t } = useTranslation();
  const queries = useQueryClient();
  const [title, setTitle] = useState(conversation.title);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.select(), []);
  const saving = useMutation({
    mutationFn: () => renameConversation(conversation.id, title),
    onSuccess: async () => {
      await queries.invalidateQueries({ queryKey: CONVERSATIONS });
      onDone();
    },
  });

  function save(event: FormEvent): void {
    event.preventDefault();
    if (!saving.isPending) saving.mutate();
  }

  function onKeyDown(event: KeyboardEvent<HTMLInputElement>): void {
    if (event.key === "Escape") {
      event.stopPropagation();
      onDone();
    }
    // The Enter that picks a word from a Chinese input method does not save.
    if (event.key === "Enter" && !isSendKey(event)) event.preventDefault();
  }

  return (
    <li data-testid="conversation">
      <form onSubmit={save} className="flex items-center gap-1">
        <input
          ref={field}
          autoFocus
          value={title}
          maxLength={100}
          aria-label={t("conversations.title")}
          className="field min-w-0 grow px-2 py-1 text-sm"
          onChange={(event) => setTitle(event.target.value)}
          onKeyDown={onKeyDown}
          data-testid="title"
        />
        <IconButton small type="submit" label={t("conversations.save")} disabled={!title.trim()}>
          <Check aria-hidden className="size-4" />
        </IconButton>
        <IconButton small label={t("message.cancel")} onClick={onDone}>
          <X aria-hidden className="size-4" />
        </IconButton>
      </form>
      <Failure error={saving.error} />
    </li>
  );
}

interface DeleteProps {
  conversation: Conversation | undefined;
  onClose: () => void;
  onDeleted: (id: string) => void;
}

function DeleteDialog({ conversation, onClose, onDeleted }: DeleteProps) {
  const { t } = useTranslation();
  const queries = useQueryClient();
  const deleting = useMutation({
    mutationFn: deleteConversation,
    onSuccess: async (_, id) => {
      onDeleted(id);
      onClose();
      await queries.invalidateQueries({ queryKey: CONVERSATIONS });
    },
  });
  return (
    <Dialog
      open={conversation !== undefined}
      title={t("conversations.deleteTitle")}
      onClose={onClose}
      testId="delete-conversation"
    >
      <p className="text-muted-foreground">
        {t("conversations.deleteText", { title: conversation?.title || t("conversations.untitled") })}
      </p>
      <Failure error={deleting.error} />
      <div className="mt-6 flex justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          {t("message.cancel")}
        </button>
        <button
          type="button"
          className="button button-danger"
          aria-busy={deleting.isPending}
          onClick={() => conversation && !deleting.isPending && deleting.mutate(conversation.id)}
          data-testid="confirm-delete"
        >
          {t("conversations.deleteButton")}
        </button>
      </div>
    </Dialog>
  );
}
