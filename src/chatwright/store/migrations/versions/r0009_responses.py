"""What programs leave on /v1: responses with their items, conversations, stored chat completions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "responses",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("previous_id", sa.String(40), nullable=True),
        sa.Column("conversation_id", sa.String(40), nullable=True),
        sa.Column("head", sa.Text(), nullable=False),
        sa.Column("pieces", sa.Text(), nullable=True),
        sa.Column("server", sa.String(64), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("cancel_asked", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_responses"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_responses_user_id", ondelete="CASCADE"),
        sa.CheckConstraint(
            "status IN ('queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled')",
            name=op.f("ck_responses_status"),
        ),
    )
    op.create_index("ix_responses_user_id", "responses", ["user_id"])
    op.create_index("ix_responses_server_status", "responses", ["server", "status"])
    op.create_table(
        "response_items",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("response_id", sa.String(40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("is_output", sa.Boolean(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_response_items"),
        sa.ForeignKeyConstraint(
            ["response_id"], ["responses.id"], name="fk_response_items_response_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("response_id", "number", name="uq_response_items_response_id_number"),
    )
    op.create_table(
        "api_conversations",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=True),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_conversations"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_conversations_user_id", ondelete="CASCADE"),
    )
    op.create_index("ix_api_conversations_user_id", "api_conversations", ["user_id"])
    op.create_table(
        "api_conversation_items",
        sa.Column("conversation_id", sa.String(40), nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "id", name="pk_api_conversation_items"),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["api_conversations.id"],
            name="fk_api_conversation_items_conversation_id",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("conversation_id", "number", name="uq_api_conversation_items_conversation_id_number"),
    )
    op.create_table(
        "stored_completions",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stored_completions"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_stored_completions_user_id", ondelete="CASCADE"),
    )
    op.create_index("ix_stored_completions_user_id_position", "stored_completions", ["user_id", "position"])
    op.create_table(
        "stored_messages",
        sa.Column("completion_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("completion_id", "number", name="pk_stored_messages"),
        sa.ForeignKeyConstraint(
            ["completion_id"], ["stored_completions.id"], name="fk_stored_messages_completion_id", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "stored_labels",
        sa.Column("completion_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint("completion_id", "name", name="pk_stored_labels"),
        sa.ForeignKeyConstraint(
            ["completion_id"], ["stored_completions.id"], name="fk_stored_labels_completion_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_stored_labels_name_value", "stored_labels", ["name", "value"])
