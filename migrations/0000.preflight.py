"""Checks everything that can be refused before anything is written, also where plain ``yoyo apply`` is what runs."""

from yoyo import step


def check(connection):
    from two_tower.server.preflight import require

    require(connection)


steps = [step(check)]
