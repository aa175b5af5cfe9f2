"""How large what programs keep is, row by row, and by which key work was begun that goes on by itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

# Table → its own texts, then (a table of what belongs to it, the column that says to what, the texts of that).
SIZES: dict[str, tuple[tuple[str, ...], tuple[str, str, tuple[str, ...]] | None]] = {
    "responses": (("head", "pieces"), ("response_items", "response_id", ("content",))),
    "api_conversations": ((), ("api_conversation_items", "conversation_id", ("content",))),
    "stored_completions": (("body",), ("stored_messages", "completion_id", ("content",))),
    "evals": (("source", "criteria", "user_metadata"), None),
    "eval_runs": (
        ("source", "user_metadata"),
        ("eval_items", "run_id", ("content", "given", "results", "sample")),
    ),
}
# What the index of owners and sizes begins with, so that it is enough.
REPLACED = ("responses", "api_conversations", "eval_runs")


def upgrade() -> None:
    """Add the columns, and measure what is there."""
    for table, (own, parts) in SIZES.items():
        op.add_column(table, sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        sizes = [_bytes(column) for column in own]
        if parts is not None:
            child, parent_id, columns = parts
            each = " + ".join(_bytes(column) for column in columns)
            sizes.append(
                f"COALESCE((SELECT SUM({each}) FROM {child} WHERE {child}.{parent_id} = {table}.id), 0)"  # noqa: S608  names of ours
            )
        op.execute(f"UPDATE {table} SET size_bytes = {' + '.join(sizes)}")  # noqa: S608
        op.create_index(f"ix_{table}_user_id_size_bytes", table, ["user_id", "size_bytes"])
        if table in REPLACED:
            op.drop_index(f"ix_{table}_user_id", table_name=table)
    op.add_column("eval_runs", sa.Column("key_id", sa.String(40), nullable=True))
    op.add_column("batches", sa.Column("key_id", sa.String(40), nullable=True))


def _bytes(column: str) -> str:
    """The length of a text in UTF-8."""
    if op.get_bind().dialect.name == "sqlite":
        return f"COALESCE(LENGTH(CAST({column} AS BLOB)), 0)"
    return f"COALESCE(OCTET_LENGTH({column}), 0)"
