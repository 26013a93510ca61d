"""Runs report their outcome by webhook and mail; errors of these are warnings, not failures."""

from __future__ import annotations

import email
import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
from typer.testing import CliRunner

from test_retrain import Webhook, webhook  # noqa: F401 - a fixture
from two_tower.cli.main import app
from two_tower.errors import UserError
from two_tower.notify import Channels, channels


@dataclass
class MailServer:
    """Speaks as much SMTP as a client without TLS needs."""

    url: str = ""
    refuses: str = ""
    """The command that is answered with an error."""
    sent: list[EmailMessage] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def mail() -> Iterator[MailServer]:
    found = MailServer()

    class Handler(socketserver.StreamRequestHandler):
        def answer(self, line: str) -> None:
            self.wfile.write(line.encode() + b"\r\n")

        def handle(self) -> None:
            self.answer("220 here")
            while line := self.rfile.readline().decode().strip():
                command = line.split()[0].upper()
                found.asked.append(line)
                if command == found.refuses:
                    self.answer("550 not here")
                elif command == "DATA":
                    self.answer("354 go on")
                    text = b""
                    while (part := self.rfile.readline()) != b".\r\n":
                        text += part
                    found.sent.append(email.message_from_bytes(text, EmailMessage, policy=default))
                    self.answer("250 taken")
                else:
                    self.answer("221 bye" if command == "QUIT" else "250 fine")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.url = f"smtp://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()


def test_mail_reaches_all_recipients(mail: MailServer) -> None:
    told = Channels(mail=("a@example.org", "b@example.org"), smtp=mail.url, sender="runs@example.org")
    assert told.tell("a subject\nwith a break", "視聴データ <b> & more") == []
    (message,) = mail.sent
    assert (message["From"], message["To"]) == ("runs@example.org", "a@example.org, b@example.org")
    assert message["Subject"] == "a subject with a break"
    assert message.get_content().strip() == "視聴データ <b> & more"
    assert sum(line.startswith("rcpt TO") for line in mail.asked) == 2


@pytest.mark.sampled(2)
@pytest.mark.parametrize("refuses", ["EHLO", "MAIL", "RCPT", "DATA"])
def test_a_server_that_refuses_is_a_warning(mail: MailServer, refuses: str) -> None:
    mail.refuses = refuses
    warnings = Channels(mail=("a@example.org",), smtp=mail.url).tell("subject", "text")
    assert bool(warnings) == (refuses != "EHLO")  # a server may know HELO alone
    assert all("no mail was sent" in warning for warning in warnings)


@pytest.mark.parametrize(
    "smtp", ["smtp://127.0.0.1:1", "smtps://127.0.0.1:1", "smtp://nowhere.invalid", "smtp://127.0.0.1:no"]
)
def test_an_unreachable_server_is_a_warning_without_secrets(smtp: str) -> None:
    warnings = Channels(mail=("a@example.org",), smtp=smtp.replace("//", "//user:secret@")).tell("subject", "text")
    assert len(warnings) == 1
    assert "secret" not in warnings[0]


def test_a_password_is_not_sent_without_tls(mail: MailServer) -> None:
    warnings = Channels(mail=("a@example.org",), smtp=mail.url.replace("//", "//user:secret@")).tell("s", "t")
    assert warnings == ["no mail was sent: SMTPNotSupportedError"]
    assert not any("secret" in line or line.upper().startswith("AUTH") for line in mail.asked)
    assert mail.sent == []


def test_missing_notification_settings_fail_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TWO_TOWER_SMTP", "TWO_TOWER_MAIL_TO", "TWO_TOWER_WEBHOOK"):
        monkeypatch.delenv(name, raising=False)
    assert channels() == Channels()
    with pytest.raises(UserError, match="TWO_TOWER_SMTP"):
        channels(mail=["a@example.org"])
    monkeypatch.setenv("TWO_TOWER_SMTP", "mail.example.org")
    with pytest.raises(UserError, match="is no mail server"):
        channels()
    monkeypatch.setenv("TWO_TOWER_SMTP", "smtps://mail.example.org")
    monkeypatch.setenv("TWO_TOWER_MAIL_TO", "a@example.org, b@example.org,")
    assert channels().mail == ("a@example.org", "b@example.org")
    for bad in ("nobody", "a@example.org\nBcc: x@example.org"):
        with pytest.raises(UserError, match="is no address"):
            channels(mail=[bad])


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (("train",), "Training failed: "),
        (("retrain",), "Retraining failed: "),
        (("sync-videos", "--mode", "embeddings"), "Syncing videos failed: "),
    ],
)
def test_verbs_notify_of_a_run_that_could_not_begin(
    verb: tuple[str, ...],
    said: str,
    webhook: Webhook,  # noqa: F811
    mail: MailServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TWO_TOWER_SMTP", mail.url)
    nowhere = ("--dsn", "postgresql://127.0.0.1:1/nothing", "--mail", "a@example.org", "--webhook", webhook.url)
    done = CliRunner().invoke(app, [*verb, *nowhere])
    assert done.exit_code == 1
    assert webhook.text.startswith(said)
    assert mail.sent[0]["Subject"] == f"two-tower: {said.removesuffix(': ').lower()}"


@pytest.mark.world
def test_sync_videos_notifies_of_its_result(
    dsn: str,
    webhook: Webhook,  # noqa: F811
    mail: MailServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWO_TOWER_SMTP", mail.url)
    monkeypatch.setenv("TWO_TOWER_MAIL_TO", "a@example.org")
    monkeypatch.setenv("TWO_TOWER_WEBHOOK", webhook.url)
    words = ["sync-videos", "--dsn", dsn, "--mode", "embeddings", "--output-root", "syncs", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert webhook.text.startswith("Videos are synced; ")
    assert "vectors written" in webhook.text
    assert mail.sent[0].get_content().strip() == webhook.text
    run = (tmp_path / "syncs" / "latest").resolve()
    assert run.name.endswith("JST")
    assert json.loads((run / "summary.json").read_text()) == json.loads(done.stdout)
    assert "model_meta.json" in {path.name for path in run.iterdir()}
    webhook.status = 500
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(list((tmp_path / "syncs" / "runs").iterdir())) == 2
