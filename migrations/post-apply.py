"""Applies the logic after the last migration, so that plain ``yoyo apply`` builds a whole database too."""

from yoyo import step


def apply_logic(connection):
    from two_tower.server import migrate

    if not migrate.waiting(connection):
        migrate.apply_logic(connection)


steps = [step(apply_logic)]
