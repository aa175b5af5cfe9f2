// How users and keys are called, as far as they still are.
export type Names = ReadonlyMap<string, { name: string; owner: string | null }>;

/** The name, with its owner where it is a key of somebody; the id where nobody knows it any more. */
export function nameOf(id: string, names: Names): string {
  const found = names.get(id);
  if (!found) return id;
  return found.owner === null ? found.name : `${found.owner} · ${found.name}`;
}
