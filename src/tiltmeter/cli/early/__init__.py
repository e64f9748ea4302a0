"""Checks of options that need neither torch nor the model: wrong input is refused before these are loaded.

A check refuses only what would be refused later, too: what it does not know, it leaves alone.
"""
