"""Applies the logic after the state, so that plain ``yoyo apply`` builds a whole database too."""

from yoyo import step


def apply_logic(connection):
    from two_tower.migrate import apply_logic

    apply_logic(connection)


steps = [step(apply_logic)]
