"""A subscriber gets what is retained, although nobody waits for anybody.

A message with RETAIN goes to the owner of its topic, which stores it and passes it on to shards that want it; a new
subscription asks the owner for what is stored, unless a hint, which all shards share, says that nobody ever retained such
a topic. Every announcement carries a stamp, one more than what was published before it; a relay carries what was published
when it left, and the owner acts on it knowing the announcements with stamps up to that and no others. In a turn the owner takes
what is in its rings and acts on all relays before all questions. So a message that was acknowledged before the SUBSCRIBE comes
as retained, and none falls between the store and the live stream.

Shards: the subscriber's, the publisher's (which may be the same, or the owner's), the owner's, and one that announces
something else.
"""
from check import Wrong, check, finish

OWNER, SUBSCRIBER, OTHER, PUBLISHER = range(4)
(LOGS, PUBLISHED, HINT, STORE, VIEW, HEARD, TO_OWNER, TO_SUBSCRIBER, SUB, PUB, NOISE, TAKEN) = range(12)


class Retained:
    def __init__(self, messages, source=PUBLISHER, subscribes_after=0, noise=1, without=""):
        self.messages, self.source, self.noise, self.without = messages, source, noise, without
        self.subscribes_after = subscribes_after  # messages that were acknowledged before the SUBSCRIBE was sent

    def init(self):
        state = [None] * 12
        state[LOGS] = [[] for _ in range(4)]      # of stamps; all of the subscriber's are about the topic
        state[PUBLISHED] = 0
        state[HINT] = False
        state[STORE] = 0
        state[VIEW] = False                       # the owner knows of the subscriber
        state[HEARD] = [0] * 4
        state[TO_OWNER] = [[] for _ in range(4)]
        state[TO_SUBSCRIBER] = []
        state[SUB] = [0, 0, False, []]            # step, stamp, asked, what came: [kind, message]
        state[PUB] = [0, 0, 0]                    # messages that left, step of the next, its stamp
        state[NOISE] = [0, 0, 0]                  # announcements, step, stamp
        state[TAKEN] = []                         # by the owner in this turn, not yet acted upon
        return state

    def actions(self, state):
        if state[SUB][0] < 4 and state[PUB][0] >= self.subscribes_after:
            yield ("SUBSCRIBE", state[SUB][0])
        if state[PUB][0] < self.messages:
            yield ("PUBLISH", state[PUB][0] + 1, state[PUB][1])
        if state[NOISE][0] < self.noise:
            yield ("other announces", state[NOISE][1])
        if state[TAKEN]:
            yield ("owner acts",)
        elif any(state[TO_OWNER]):
            for first in range(4):
                if state[TO_OWNER][first]:
                    yield ("owner takes", first)
        if state[TO_SUBSCRIBER]:
            yield ("subscriber gets",)

    def announce(self, state, shard, step, stamp):
        """One of three steps; returns the stamp."""
        if step == 0:
            return state[PUBLISHED] + 1
        if step == 1:
            state[LOGS][shard].append(stamp)
        else:
            state[PUBLISHED] += 1
        return stamp

    def hear(self, state, until):
        for shard in range(4):
            log = state[LOGS][shard]
            while state[HEARD][shard] < len(log) and (until is None or log[state[HEARD][shard]] <= until):
                state[HEARD][shard] += 1
                if shard == SUBSCRIBER:
                    state[VIEW] = True

    def look_at_hint(self, state):
        sub = state[SUB]
        sub[2] = True
        if state[HINT]:
            state[TO_OWNER][SUBSCRIBER].append(["query", 0, 0])
        else:
            sub[3].append(["nothing retained", 0])

    def act(self, state, what, message, stamp):
        """The owner, upon a question or a message."""
        if what == "query":
            self.hear(state, None)
            state[TO_SUBSCRIBER].append(["retained", state[STORE]])
            return
        if self.without == "stamp":
            self.hear(state, None)
        elif self.without != "reading":
            self.hear(state, stamp)
        state[STORE] = message
        if state[VIEW]:
            state[TO_SUBSCRIBER].append(["live", message])

    def apply(self, state, label):
        kind = label[0]
        if kind == "SUBSCRIBE":
            sub = state[SUB]
            step = sub[0]
            if self.without == "announce first":
                step = [3, 0, 1, 2][step]
            if step == 3:
                self.look_at_hint(state)
            else:
                sub[1] = self.announce(state, SUBSCRIBER, step, sub[1])
            sub[0] += 1
        elif kind == "PUBLISH":
            pub = state[PUB]
            step = pub[1]
            if self.without == "hint first":
                step = [1, 0, 2][step]
            if step == 0:
                state[HINT] = True
            elif step == 1:
                pub[2] = state[PUBLISHED]
            else:
                if self.source == OWNER:
                    self.act(state, "relay", pub[0] + 1, pub[2])
                else:
                    state[TO_OWNER][self.source].append(["relay", pub[0] + 1, pub[2]])
                pub[0] += 1
            pub[1] = (pub[1] + 1) % 3
        elif kind == "other announces":
            noise = state[NOISE]
            noise[2] = self.announce(state, OTHER, noise[1], noise[2])
            noise[1] += 1
            if noise[1] == 3:
                noise[0], noise[1] = noise[0] + 1, 0
        elif kind == "owner takes":
            for source in range(4):
                ring = state[TO_OWNER][(label[1] + source) % 4]
                state[TAKEN] += ring
                ring.clear()
            if self.without != "relays first":
                state[TAKEN].sort(key=lambda taken: taken[0] == "query")
        elif kind == "owner acts":
            self.act(state, *state[TAKEN].pop(0))
        else:
            what, message = state[TO_SUBSCRIBER].pop(0)
            came = state[SUB][3]
            if what == "live" or (message and not any(earlier[0] == "live" for earlier in came)):
                came.append([what, message])

    def final(self, state):
        came = [entry for entry in state[SUB][3] if entry[1]]
        if self.messages and (not came or came[-1][1] != state[STORE]):
            raise Wrong("what the subscriber saw last is not what is stored")
        numbers = [message for _, message in came]
        if numbers != sorted(set(numbers)):
            raise Wrong("out of order or twice")
        if any(what == "live" and message <= self.subscribes_after for what, message in came):
            raise Wrong("acknowledged before the SUBSCRIBE, and it came as a live message")


if __name__ == "__main__":
    check("a PUBLISH beside a SUBSCRIBE", Retained(1, noise=2))
    check("two beside a SUBSCRIBE", Retained(2))
    check("publisher on the subscriber's shard", Retained(2, SUBSCRIBER))
    check("publisher on the owner's shard", Retained(2, OWNER))
    check("a SUBSCRIBE after the first PUBLISH was acknowledged", Retained(2, subscribes_after=1))
    check("the same on one shard", Retained(2, SUBSCRIBER, subscribes_after=1))
    check("the stamp before the hint", Retained(1, without="hint first"), holds=False)
    check("the hint before the announcement", Retained(1, without="announce first"), holds=False)
    check("a relay without reading", Retained(1, without="reading"), holds=False)
    check("the same on the owner's shard", Retained(1, OWNER, without="reading"), holds=False)
    check("a relay with all that was announced", Retained(1, subscribes_after=1, without="stamp"), holds=False)
    check("questions before relays", Retained(1, subscribes_after=1, without="relays first"), holds=False)
    finish()
