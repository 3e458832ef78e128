"""A subscriber gets what is retained first, then what is live, and nobody waits for anybody but the publisher.

A message with RETAIN goes to the owner of its topic, which stores it and passes it on to shards that want it. Its publisher is
acknowledged when the owner has stored it and every shard that it was passed on to has acted upon it. A new subscription asks
the owner for what is stored, unless a hint, which all shards share, says that nobody ever retained such a topic. Before the
owner acts upon anything, it reads what was announced. While a subscription waits for what is stored, live messages wait behind
it; the first one that waits takes the place of the stored copy of its topic.

So a message that was acknowledged before the SUBSCRIBE was sent comes as retained, no message falls between the store and the live
stream, none comes twice, and none that is live comes before one that is retained.

Shards: the subscriber's, the owner's, and one for each publisher that is on neither of them. `earlier` is another subscriber of the
topic on the subscriber's shard, so that live messages come there before the SUBSCRIBE. `stored` is a message on another topic
of the filter that was retained long before.
"""
from check import Wrong, check, finish

OWNER, SUBSCRIBER, FIRST, SECOND = range(4)
(LOG, PUBLISHED, HINT, STORE, VIEW, TO_OWNER, TAKEN, TO_SUBSCRIBER, DONE, SUB, PUBS) = range(11)
OTHER = 100
STEP, SUBSCRIBED, WAITS, BEHIND, CAME = range(5)
LEFT, AT, ACKNOWLEDGED = range(3)


class Retained:
    def __init__(self, messages, sources=(FIRST,), subscribes_after=0, earlier=False, stored=False, without=""):
        self.messages, self.sources, self.without = messages, sources, without
        self.earlier, self.stored = earlier, stored
        self.subscribes_after = subscribes_after  # messages of the first publisher that were acknowledged before

    def init(self):
        state = [None] * 11
        state[LOG] = 0
        state[PUBLISHED] = 0
        state[HINT] = self.stored
        state[STORE] = 0
        state[VIEW] = self.earlier                # the owner passes messages on to the subscriber's shard
        state[TO_OWNER] = [[] for _ in range(4)]
        state[TAKEN] = []                         # by the owner in this turn, not yet acted upon
        state[TO_SUBSCRIBER] = []
        state[DONE] = [0, 0]                      # by publisher: messages that everybody has acted upon
        state[SUB] = [0, False, False, [], []]
        state[PUBS] = [[0, 0, 0] for _ in self.sources]
        return state

    def actions(self, state):
        if state[SUB][STEP] < 3 and state[PUBS][0][ACKNOWLEDGED] >= self.subscribes_after:
            yield ("SUBSCRIBE", state[SUB][STEP])
        for publisher, pub in enumerate(state[PUBS]):
            if pub[LEFT] < self.messages:
                yield ("PUBLISH", publisher, pub[LEFT] + 1, pub[AT])
            done = pub[LEFT] if self.without == "storing first" else state[DONE][publisher]
            if pub[ACKNOWLEDGED] < done:
                yield ("PUBACK", publisher)
        if state[TAKEN]:
            yield ("owner acts",)
        elif any(state[TO_OWNER]):
            for first in range(4):
                if state[TO_OWNER][first]:
                    yield ("owner takes", first)
        if state[TO_SUBSCRIBER] and state[SUB][STEP] in (0, 3):  # it does one thing after the other
            yield ("subscriber's shard acts",)

    def act(self, state, what, publisher, message):
        """The owner, upon a question or a message."""
        if what == "query" or self.without != "reading":
            state[VIEW] = state[VIEW] or state[PUBLISHED] > 0
        if what == "query":
            state[TO_SUBSCRIBER].append(["retained", state[STORE], None])
            return
        state[STORE] = message
        if state[VIEW]:
            state[TO_SUBSCRIBER].append(["live", message, publisher])
        if not state[VIEW] or self.without == "passing on first":
            state[DONE][publisher] += 1

    def subscribe(self, state, step):
        sub = state[SUB]
        if self.without == "announcing first":
            step = [2, 0, 1][step]
        if step == 0:
            sub[SUBSCRIBED] = True
            state[LOG] = 1
        elif step == 1:
            state[PUBLISHED] = state[LOG]
        elif state[HINT]:
            sub[WAITS] = True
            state[TO_OWNER][SUBSCRIBER].append(["query", 0, 0])

    def come(self, state, what, message):
        """The subscriber's shard, upon a message or an answer of the owner."""
        sub = state[SUB]
        if what == "live":
            if sub[WAITS] and self.without != "waiting":
                sub[BEHIND].append(message)
            elif sub[SUBSCRIBED]:
                sub[CAME].append(["live", message])
            return
        sub[WAITS] = False
        if self.stored:
            sub[CAME].append(["retained", OTHER])
        if sub[BEHIND] and self.without != "taking its place":
            sub[CAME].append(["retained", sub[BEHIND].pop(0)])
        elif message and not any(earlier[1] == message for earlier in sub[CAME]):
            sub[CAME].append(["retained", message])
        sub[CAME] += [["live", message] for message in sub[BEHIND]]
        sub[BEHIND] = []

    def apply(self, state, label):
        kind = label[0]
        if kind == "SUBSCRIBE":
            self.subscribe(state, label[1])
            state[SUB][STEP] += 1
        elif kind == "PUBLISH":
            publisher = label[1]
            pub, source = state[PUBS][publisher], self.sources[publisher]
            step = 1 - pub[AT] if self.without == "the hint first" else pub[AT]
            if step == 0:
                state[HINT] = True
            else:
                message = 10 * publisher + pub[LEFT] + 1
                if source == OWNER:
                    self.act(state, "relay", publisher, message)
                else:
                    state[TO_OWNER][source].append(["relay", publisher, message])
            pub[AT] = 1 - pub[AT]
            pub[LEFT] += pub[AT] == 0
        elif kind == "PUBACK":
            state[PUBS][label[1]][ACKNOWLEDGED] += 1
        elif kind == "owner takes":
            for source in range(4):
                ring = state[TO_OWNER][(label[1] + source) % 4]
                state[TAKEN] += ring
                ring.clear()
        elif kind == "owner acts":
            self.act(state, *state[TAKEN].pop(0))
        else:
            what, message, publisher = state[TO_SUBSCRIBER].pop(0)
            self.come(state, what, message)
            if what == "live" and self.without != "passing on first":
                state[DONE][publisher] += 1

    def final(self, state):
        came = [entry for entry in state[SUB][CAME] if entry[1] != OTHER]
        if self.stored and ["retained", OTHER] not in state[SUB][CAME]:
            raise Wrong("what was retained before did not come")
        if not came or came[-1][1] != state[STORE]:
            raise Wrong("what the subscriber saw last is not what is stored")
        for publisher in range(len(self.sources)):
            numbers = [message for _, message in came if message // 10 == publisher]
            if numbers != sorted(set(numbers)):
                raise Wrong("out of order or twice")
        kinds = [what for what, _ in state[SUB][CAME]]
        if kinds != sorted(kinds, key=lambda what: what == "live"):
            raise Wrong("a live message before a retained one")
        if any(what == "live" and message <= self.subscribes_after for what, message in came if message < 10):
            raise Wrong("acknowledged before the SUBSCRIBE, and it came as a live message")
        if any(pub[ACKNOWLEDGED] < self.messages for pub in state[PUBS]):
            raise Wrong("not acknowledged")


if __name__ == "__main__":
    check("a PUBLISH beside a SUBSCRIBE", Retained(1))
    check("two beside a SUBSCRIBE", Retained(2))
    check("three beside a SUBSCRIBE", Retained(3))
    check("publisher on the subscriber's shard", Retained(2, [SUBSCRIBER]))
    check("publisher on the owner's shard", Retained(2, [OWNER]))
    check("an earlier subscriber", Retained(2, earlier=True))
    check("another topic that is retained", Retained(2, earlier=True, stored=True))
    check("two publishers", Retained(2, [FIRST, SECOND]))
    check("two publishers and an earlier subscriber", Retained(2, [OWNER, SECOND], earlier=True))
    check("a SUBSCRIBE after the first PUBACK", Retained(2, subscribes_after=1))
    check("the same on one shard", Retained(2, [SUBSCRIBER], subscribes_after=1))
    check("the same with an earlier subscriber", Retained(2, subscribes_after=1, earlier=True))
    check("the same with two publishers", Retained(2, [OWNER, FIRST], subscribes_after=1, earlier=True))
    check("the relay before the hint", Retained(1, without="the hint first"), holds=False)
    check("the look at the hint before the announcement", Retained(1, without="announcing first"), holds=False)
    check("a relay without reading", Retained(1, without="reading"), holds=False)
    check("the same on the owner's shard", Retained(1, [OWNER], without="reading"), holds=False)
    check("PUBACK before it is stored", Retained(1, subscribes_after=1, without="storing first"), holds=False)
    check("PUBACK before it is passed on",
          Retained(2, [OWNER, FIRST], subscribes_after=1, earlier=True, without="passing on first"), holds=False)
    check("live messages do not wait", Retained(1, stored=True, without="waiting"), holds=False)
    check("the stored copy of one that waits", Retained(2, earlier=True, without="taking its place"), holds=False)
    finish()
