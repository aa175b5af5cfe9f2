"""What a database held at each revision: rows as that version wrote them, so that every upgrade is tried with data."""

from __future__ import annotations

from typing import Any


def message(id: str, parent_id: str | None, number: int, role: str, content: str, **values: Any) -> dict[str, Any]:
    """A row of messages."""
    optional = dict.fromkeys(("model", "finish_reason", "error", "prompt_tokens", "completion_tokens"))
    row = {"id": id, "conversation_id": "conv-1", "parent_id": parent_id, "number": number, "role": role}
    return row | {"content": content, "created_at": 1_700_000_008 + number} | optional | values


# Revision → table → rows that are new with it. What stands here is never changed, as databases like it are out there.
ROWS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "0001": {
        "users": [
            {
                "id": "user-1",
                "email": "ann@example.org",
                "name": "Ann",
                "role": "owner",
                "status": "active",
                "password_hash": "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
                "created_at": 1_700_000_000,
            },
            {
                "id": "user-2",
                "email": "li@example.org",
                "name": "李雷 🙂",
                "role": "member",
                "status": "invited",
                "password_hash": None,
                "created_at": 1_700_000_001,
            },
        ]
    },
    "0002": {
        "sessions": [
            {
                "id": "session-1",
                "user_id": "user-1",
                "token_hash": "a" * 64,
                "created_at": 1_700_000_002,
                "seen_at": 1_700_000_003,
                "expires_at": 1_702_000_000,
            }
        ],
        "api_keys": [
            {
                "id": "key-1",
                "user_id": "user-1",
                "prefix": "AbCdEf123456",
                "secret_hash": "b" * 64,
                "name": "笔记本",
                "scopes": "files inference",
                "created_at": 1_700_000_004,
                "expires_at": None,
                "revoked_at": 1_700_000_005,
                "used_at": None,
            }
        ],
        "links": [
            {
                "id": "link-1",
                "user_id": "user-2",
                "purpose": "invitation",
                "token_hash": "c" * 64,
                "created_at": 1_700_000_006,
                "expires_at": 1_700_300_000,
            }
        ],
        "throttle": [{"subject": "d" * 64, "tries": 3, "tried_at": 1_700_000_007, "blocked_until": 0}],
    },
    "0003": {
        "conversations": [
            {
                "id": "conv-1",
                "user_id": "user-1",
                "title": "猫 🙂",
                "active_message_id": "msg-3",
                "created_at": 1_700_000_008,
                "updated_at": 1_700_000_009,
            }
        ],
        "messages": [
            message("msg-1", None, 1, "user", "你好 🙂"),
            message("msg-2", "msg-1", 2, "assistant", "Hello", model="tiny", finish_reason="stop", prompt_tokens=3),
            message("msg-3", "msg-1", 3, "assistant", "Hel", model="tiny", finish_reason=None),
        ],
        "generations": [
            {
                "id": "gen-1",
                "conversation_id": "conv-1",
                "message_id": "msg-3",
                "server": "e" * 64,
                "stop_asked": False,
                "started_at": 1_700_000_010,
                "seen_at": 1_700_000_011,
            }
        ],
    },
    "0004": {
        "limits": [
            {
                "id": "limit-1",
                "key_id": "key-1",
                "user_id": None,
                "model": None,
                "requests_per_minute": 60,
                "tokens_per_minute": None,
                "concurrent_requests": 0,
                "tokens_per_month": 10**15,
                "created_at": 1_700_000_020,
            }
        ],
        "reservations": [
            {
                "id": "reservation-1",
                "server": "host/1/1700000000/server-1",
                "user_id": "user-1",
                "key_id": "key-1",
                "model": "smollm2:135m",
                "kind": "completions",
                "started_at": 1_700_000_021,
                "seen_at": 1_700_000_022,
                "tokens": 2048,
                "input_tokens": 7,
                "cached_tokens": 3,
                "output_tokens": 20,
            }
        ],
        "usage": [
            {
                "id": "e" * 40,
                "start": 1_700_000_040,
                "user_id": "user-of-long-ago",
                "key_id": "",
                "model": "李雷的模型",
                "kind": "embeddings",
                "requests": 2,
                "input_tokens": 2**40,
                "cached_tokens": 0,
                "output_tokens": 0,
            }
        ],
    },
    "0005": {
        "files": [
            {
                "id": "file-1",
                "user_id": "user-1",
                "purpose": "fine-tune",
                "filename": "对话.jsonl",
                "size_bytes": 5_000_000_000,
                "sha256": "e" * 64,
                "status": "processed",
                "status_details": None,
                "created_at": 1_700_000_008,
                "expires_at": None,
            },
            {
                "id": "file-2",
                "user_id": None,
                "purpose": "batch_output",
                "filename": "out.jsonl",
                "size_bytes": 0,
                "sha256": "f" * 64,
                "status": "error",
                "status_details": "x",
                "created_at": 1_700_000_008,
                "expires_at": 1_800_000_000,
            },
        ],
        "uploads": [
            {
                "id": "upload-1",
                "user_id": "user-1",
                "purpose": "batch",
                "filename": "a.jsonl",
                "size_bytes": 10,
                "mime_type": "text/jsonl",
                "status": "completed",
                "file_expires_after_s": 3600,
                "file_id": "file-1",
                "created_at": 1_700_000_009,
                "expires_at": 1_700_003_609,
            }
        ],
        "upload_parts": [
            {"id": "part-1", "upload_id": "upload-1", "size_bytes": 10, "created_at": 1_700_000_010},
        ],
    },
    "0006": {
        "jobs": [
            {
                "id": "ftjob-1",
                "user_id": "user-1",
                "number": 1,
                "place": "place-1",
                "kind": "fine-tune",
                "state": "succeeded",
                "parameters": '{"model": "smollm2:135m", "metadata": {"für": "客服"}}',
                "chosen": '{"n_epochs": 3}',
                "model_name": "ft:smollm2:135m:chatwright:客服:AbCdEf12",
                "model_state": "ready",
                "error_code": None,
                "error_message": None,
                "error_param": None,
                "trained_tokens": 6_000_000_000,
                "result_file_id": "file-1",
                "journal": "{}",
                "n_events": 1,
                "tries": 0,
                "created_at": 1_700_000_011,
                "updated_at": 1_700_000_012,
                "finished_at": 1_700_000_012,
                "estimated_finish": None,
            },
            {
                "id": "ftjob-2",
                "user_id": None,
                "number": 2,
                "place": "place-1",
                "kind": "fine-tune",
                "state": "failed",
                "parameters": "{}",
                "chosen": None,
                "model_name": "ft:smollm2:135m:chatwright::AbCdEf13",
                "model_state": "none",
                "error_code": "invalid_training_file",
                "error_message": "Line 2 is not an object.",
                "error_param": "training_file",
                "trained_tokens": None,
                "result_file_id": None,
                "journal": '{"events": 7}',
                "n_events": 0,
                "tries": 1,
                "created_at": 1_700_000_013,
                "updated_at": 1_700_000_013,
                "finished_at": 1_700_000_014,
                "estimated_finish": 1_700_000_015,
            },
        ],
        "job_events": [
            {
                "job_id": "ftjob-1",
                "number": 1,
                "created_at": 1_700_000_011,
                "level": "info",
                "type": "metrics",
                "message": "Step 1/9",
                "data": '{"step": 1}',
            }
        ],
    },
    "0007": {
        "identities": [
            {
                "id": "identity-1",
                "user_id": "user-1",
                "issuer": "https://login.example.org/realms/单位",
                "subject": "8f14e45f-ceea-4e7a-a3b1-0e0a5a3c1d2e",
                "created_at": 1_700_000_008,
            }
        ],
        "oidc_logins": [
            {
                "state_hash": "e" * 64,
                "browser_hash": "f" * 64,
                "nonce": "n" * 43,
                "verifier": "v" * 43,
                "expires_at": 1_700_000_600,
            }
        ],
    },
    "0008": {
        "batches": [
            {
                "id": "batch-1",
                "user_id": "user-1",
                "endpoint": "/v1/chat/completions",
                "input_file_id": "file-9",
                "output_file_id": None,
                "error_file_id": "file-10",
                "output_lives_s": 3600,
                "user_metadata": '{"für": "li"}',
                "status": "failed",
                "model": None,
                "errors": '[{"code": "empty_batch", "message": "x", "line": null, "param": null}]',
                "n_total": 3,
                "n_completed": 1,
                "n_failed": 2,
                "input_tokens": 5_000_000_000,
                "cached_tokens": 0,
                "output_tokens": 7,
                "created_at": 1_700_000_011,
                "expires_at": 1_700_086_411,
                "in_progress_at": 1_700_000_012,
                "finalizing_at": None,
                "completed_at": None,
                "failed_at": 1_700_000_013,
                "expired_at": None,
                "cancelling_at": None,
                "cancelled_at": None,
            }
        ],
    },
    "0009": {
        "responses": [
            {
                "id": "resp_1",
                "user_id": "user-1",
                "status": "completed",
                "previous_id": None,
                "conversation_id": "conv_1",
                "head": '{"id":"resp_1","status":"completed","metadata":{"topic":"猫"}}',
                "pieces": "[[[2,0],[1,0]]]",
                "server": "e" * 64,
                "seen_at": 1_700_000_020,
                "cancel_asked": False,
                "created_at": 1_700_000_019,
            },
            {
                "id": "resp_2",
                "user_id": None,
                "status": "queued",
                "previous_id": "resp_1",
                "conversation_id": None,
                "head": '{"id":"resp_2","status":"queued"}',
                "pieces": None,
                "server": "e" * 64,
                "seen_at": 1_700_000_021,
                "cancel_asked": True,
                "created_at": 1_700_000_021,
            },
        ],
        "response_items": [
            {"id": "msg_1", "response_id": "resp_1", "number": 0, "is_output": False, "content": '{"text":"你好 🙂"}'},
            {"id": "msg_2", "response_id": "resp_1", "number": 1, "is_output": True, "content": '{"text":"abc"}'},
        ],
        "api_conversations": [
            {"id": "conv_1", "user_id": "user-1", "labels": '{"topic":"猫"}', "created_at": 1_700_000_018}
        ],
        "api_conversation_items": [
            {"conversation_id": "conv_1", "id": "msg_1", "number": 0, "content": '{"text":"你好 🙂"}'}
        ],
        "stored_completions": [
            {
                "id": "chatcmpl-" + "0" * 32,
                "user_id": "user-1",
                "position": 1_700_000_022_000_000_001,
                "model": "tiny",
                "body": '{"id":"chatcmpl-1"}',
                "created_at": 1_700_000_022,
            }
        ],
        "stored_messages": [
            {"completion_id": "chatcmpl-" + "0" * 32, "number": 0, "content": '{"role":"user","content":"🙂"}'}
        ],
        "stored_labels": [{"completion_id": "chatcmpl-" + "0" * 32, "name": "topic", "value": "猫"}],
    },
    "0010": {
        "evals": [
            {
                "id": "eval_1",
                "user_id": "user-1",
                "position": 1_700_000_023_000_000_001,
                "name": "猫 or dog",
                "source": '{"type":"custom"}',
                "criteria": '[{"id":"a-1","name":"a"}]',
                "user_metadata": '{"topic":"猫"}',
                "created_at": 1_700_000_023,
                "updated_at": 1_700_000_024,
            },
            {
                "id": "eval_2",
                "user_id": None,
                "position": 1_700_000_023_000_000_002,
                "name": "",
                "source": '{"type":"logs"}',
                "criteria": "[]",
                "user_metadata": None,
                "created_at": 1_700_000_023,
                "updated_at": 1_700_000_023,
            },
        ],
        "eval_runs": [
            {
                "id": "evalrun_1",
                "eval_id": "eval_1",
                "user_id": "user-1",
                "position": 1_700_000_025_000_000_001,
                "name": "first",
                "source": '{"type":"completions"}',
                "model": "tiny",
                "user_metadata": None,
                "status": "failed",
                "error_code": "user_suspended",
                "error_message": "x",
                "server": "e" * 64,
                "seen_at": 1_700_000_026,
                "n_total": 2,
                "n_passed": 1,
                "n_failed": 0,
                "n_errored": 0,
                "tallies": '{"criteria":{"a-1":[1,0]},"models":{"tiny":[1,5,0,2]}}',
                "created_at": 1_700_000_025,
                "finished_at": 1_700_000_027,
            }
        ],
        "eval_items": [
            {
                "id": "outputitem_1",
                "run_id": "evalrun_1",
                "number": 0,
                "content": '{"text":"🙂"}',
                "given": None,
                "status": "pass",
                "results": "[]",
                "sample": '{"output":[]}',
                "created_at": 1_700_000_026,
            },
            {
                "id": "outputitem_2",
                "run_id": "evalrun_1",
                "number": 1,
                "content": "{}",
                "given": '{"output_text":"x"}',
                "status": "queued",
                "results": None,
                "sample": None,
                "created_at": 1_700_000_025,
            },
        ],
    },
    "0011": {
        "eval_runs": [
            {
                "id": "evalrun_2",
                "eval_id": "eval_2",
                "user_id": None,
                "key_id": "key-1",
                "position": 1_700_000_028_000_000_001,
                "name": "",
                "source": '{"type":"jsonl"}',
                "model": None,
                "user_metadata": None,
                "size_bytes": 77,
                "status": "queued",
                "error_code": None,
                "error_message": None,
                "server": "e" * 64,
                "seen_at": 1_700_000_028,
                "n_total": 0,
                "n_passed": 0,
                "n_failed": 0,
                "n_errored": 0,
                "tallies": "{}",
                "created_at": 1_700_000_028,
                "finished_at": None,
            }
        ],
    },
}


def rows_until(revision: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of a database of this revision."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for known, tables in ROWS.items():
        if known <= revision:
            for table, new in tables.items():
                rows.setdefault(table, []).extend(new)
    return rows
