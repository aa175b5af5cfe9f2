"""The schema's history: one file a revision, applied in order by `store.migrate`. What is here is never changed again."""
