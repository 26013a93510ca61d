"""Notifications about a run: by a webhook in the format of Slack's incoming webhooks, and by mail over SMTP.

An error here is a warning of the run, never its failure. URLs are secrets, and are in no message.
"""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import httpx2

from two_tower.errors import UserError
from two_tower.settings import Settings

SECONDS = 10


@dataclass(frozen=True)
class Channels:
    """Who is told."""

    webhook: str | None = None
    """URL that accepts ``{"text": ...}``."""
    mail: tuple[str, ...] = ()
    smtp: str | None = None
    """``smtp://user:password@host:587`` or ``smtps://…``; a password requires TLS."""
    sender: str | None = None

    def tell(self, subject: str, text: str) -> list[str]:
        """Sends to all channels; returns the errors."""
        return self._post(text) + self._send(subject, text)

    def _post(self, text: str) -> list[str]:
        if not self.webhook:
            return []
        for old, new in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(old, new)
        try:
            with httpx2.Client(transport=httpx2.HTTPTransport(retries=2), timeout=SECONDS) as client:
                answer = client.post(self.webhook, json={"text": text})
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return [f"the webhook was not notified: {type(error).__name__}"]
        return [] if answer.is_success else [f"the webhook answered {answer.status_code}"]

    def _send(self, subject: str, text: str) -> list[str]:
        if not self.mail or not self.smtp:
            return []
        message = EmailMessage()
        message["Subject"] = " ".join(subject.split())
        message["From"] = self.sender or self.mail[0]
        message["To"] = ", ".join(self.mail)
        message.set_content(text + "\n")
        where = urlsplit(self.smtp)
        try:
            with _connected(self.smtp) as server:
                if where.username:
                    server.login(unquote(where.username), unquote(where.password or ""))
                refused = server.send_message(message, to_addrs=self.mail)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            return [f"no mail was sent: {type(error).__name__}"]
        return [f"no mail was sent to {address}" for address in refused]


def _connected(url: str) -> smtplib.SMTP:
    where, context = urlsplit(url), ssl.create_default_context()
    host = where.hostname or ""
    if where.scheme == "smtps":
        return smtplib.SMTP_SSL(host, where.port or 465, timeout=SECONDS, context=context)
    server = smtplib.SMTP(host, where.port or 587, timeout=SECONDS)
    try:
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=context)
            server.ehlo()
        elif where.username:
            raise smtplib.SMTPNotSupportedError("no TLS, and a password to be sent")
    except BaseException:
        server.close()
        raise
    return server


def channels(webhook: str | None = None, mail: list[str] | None = None) -> Channels:
    """The given channels, or else those of the environment. Raises UserError if mail is requested without a server."""
    settings = Settings()
    to = tuple(mail or [address.strip() for address in (settings.mail_to or "").split(",") if address.strip()])
    smtp = settings.smtp.get_secret_value() if settings.smtp else None
    if smtp and urlsplit(smtp).scheme not in ("smtp", "smtps"):
        raise UserError("TWO_TOWER_SMTP is no mail server", "write it as smtp://user:password@host:587, or smtps://…")
    if to and not smtp:
        raise UserError("mail needs TWO_TOWER_SMTP", "set it to smtp://user:password@host:587, or smtps://…")
    if bad := [address for address in to if "@" not in address or any(c in address for c in "\r\n")]:
        raise UserError(f"{bad[0]!r} is no address for mail")
    return Channels(webhook or settings.webhook, to, smtp, settings.mail_from)
