"""Explores every state of a small model, breadth first, so that a counterexample is a shortest one.

A model has `init()`, `actions(state)` (labels), `apply(state, label)` (changes the state in place) and `final(state)` for
states without actions; the last two raise `Wrong`. States are nested lists of numbers, strings and booleans.
"""
import sys
import time

FAILED = []


class Wrong(Exception):
    """What the protocol promises does not hold."""


def freeze(value):
    return tuple(freeze(item) for item in value) if isinstance(value, (list, tuple)) else value


def thaw(value):
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


def explore(model):
    """The number of states, or the wrong and the steps that lead to it."""
    first = freeze(model.init())
    came_from = {first: None}
    layer = [first]
    while layer:
        following = []
        for state in layer:
            labels = list(model.actions(thaw(state)))
            try:
                if not labels:
                    model.final(thaw(state))
                for label in labels:
                    after = thaw(state)
                    model.apply(after, label)
                    after = freeze(after)
                    if after not in came_from:
                        came_from[after] = (state, label)
                        following.append(after)
            except Wrong as wrong:
                steps = [label] if labels else []
                while came_from[state]:
                    state, label = came_from[state]
                    steps.append(label)
                return len(came_from), wrong, steps[::-1]
        layer = following
    return len(came_from), None, []


def check(name, model, holds=True):
    """Explores and says whether it came out as it must: a rule that is left out has to be missed."""
    started = time.monotonic()
    states, wrong, steps = explore(model)
    as_expected = (wrong is None) == holds
    verdict = "holds" if wrong is None else f"fails ({wrong})"
    print(f"{'ok  ' if as_expected else 'BAD '} {name}: {verdict}, {states} states, {time.monotonic() - started:.1f} s",
          flush=True)
    if not as_expected:
        FAILED.append(name)
        for step in steps:
            print("      ", step)


def finish():
    sys.exit(1 if FAILED else 0)
