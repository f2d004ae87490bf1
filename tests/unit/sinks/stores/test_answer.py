"""What is made of a store's answer: its own words, in one line, without the name of an object; and what to do."""

from __future__ import annotations

import pytest

from sinks.stores.answer import StoreAnswer, answer_of

KEY = "events/name=hunter2/a.parquet"


def refused(status: str, body: str) -> Exception:
    return RuntimeError(
        f"Generic S3 error: Error performing PUT http://h/b/{KEY} in 1ms - Server returned non-2xx status code: "
        f"{status}: {body}\n\nDebug source:\nGeneric {{ path: {KEY} }}"
    )


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (
            "403 Forbidden",
            (
                "<Error><Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/x may not s3:PutObject on "
                f'"arn:aws:s3:::b/{KEY}" by policy</Message></Error>'
            ),
            (403, "AccessDenied", 'User: arn:aws:iam::1:user/x may not s3:PutObject on "arn:aws:s3:::b/…" by policy'),
        ),
        (
            "403 Forbidden",
            (
                "<?xml?><Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate.\n"
                "RequestId:1\nTime:2</Message></Error>"
            ),
            (403, "AuthenticationFailed", "Server failed to authenticate"),
        ),
        (
            "403 Forbidden",
            '{"error": {"code": 403, "message": "no access to b/' + KEY + '", "errors": [{"reason": "forbidden"}]}}',
            (403, "forbidden", "no access to b/…"),
        ),
        (
            "400 Bad Request",
            '{"error": "invalid_grant", "error_description": "the key is gone"}',
            (400, "invalid_grant", "the key is gone"),
        ),
        ("502 Bad Gateway", "<html><body>hunter2</body></html>", (502, "BadGateway", "")),
        ("403 Forbidden", "", (403, "Forbidden", "")),
    ],
)
def test_code_and_message_are_the_stores_own(status: str, body: str, answer: tuple[int | None, str, str]) -> None:
    found = answer_of(refused(status, body), "b", KEY)
    assert found == answer
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x - HTTP error: error sending request\n\nDebug source:\nkind: Timeout", "no answer in time"),
        ("x - HTTP error\n\nDebug source:\nkind: Connect ... Connection refused", "the connection is refused"),
        ("x - HTTP error\n\nDebug source:\nkind: Connect ... dns error", "the name of the host is not known"),
        ("x\n\nDebug source:\nkind: Connect, InvalidCertificate(UnknownIssuer)", "the certificate is not trusted"),
        ("Error performing PUT http://169.254.169.254/latest", "credentials: there are none in options"),
        ("for path External AWS credential provider: LookupError: the profile x", "credentials: the profile x"),
    ],
)
def test_no_answer_is_told_in_words(text: str, said: str) -> None:
    assert str(answer_of(RuntimeError(text))).startswith(said)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 409, 411, 412, 413, 501])
def test_what_a_person_has_to_change_lasts(status: int) -> None:
    assert StoreAnswer(status, "Whatever", "").lasting


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (None, ""),
        (408, ""),
        (429, ""),
        (500, ""),
        (503, "SlowDown"),
        (400, "RequestTimeout"),
        (409, "OperationAborted"),
    ],
)
def test_what_is_about_this_moment_passes(status: int | None, code: str) -> None:
    assert not StoreAnswer(status, code, "").lasting
