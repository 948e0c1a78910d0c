"""The services. Importing one imports much that stays, so the garbage collector is told to rest before."""

from shared.process.garbage import collect_seldom

collect_seldom()
